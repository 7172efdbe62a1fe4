"""What somebody else would be shown of a list is what the policies let it use, by whichever name the list has it."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.commands.permitted_items import permitted_items
from mcp_gateway.transports.ports.principal import Principal
from tests.doubles.running_cell import cell_settings

BOB = Principal(issuer="api-key", subject="bob", groups=frozenset({"team-b"}))
POLICIES: list[dict[str, Any]] = [
    {"effect": "allow", "groups": ["team-b"], "backends": ["files"]},
    {"effect": "deny", "groups": ["team-b"], "tools": ["*delete*"]},
    {"effect": "allow", "subjects": ["ann"]},
]
BACKENDS = [{"name": "files", "builtin": "demo"}, {"name": "files2", "prefix": "2__", "builtin": "demo"}]
SETTINGS = cell_settings(BACKENDS, policies=POLICIES)


def shown(method: str, member: str, *names: str, server: str | None = None, who: Principal | None = BOB) -> list[str]:
    items = [{member: name, "description": "x"} for name in names]
    return [item[member] for item in permitted_items(SETTINGS, who, method, server, items)]


def test_tools_are_shown_that_may_be_used() -> None:
    assert shown("tools/list", "name", "files__read", "files__delete_all", "2__read", "other") == ["files__read"]
    assert shown("tools/list", "name", "read", "delete_all", server="files") == ["read"]
    assert shown("tools/list", "name", "read", server="files2") == []
    assert shown("tools/list", "name", "files__read", who=None) == []


def test_resources_are_shown_by_their_scheme() -> None:
    assert shown("resources/list", "uri", "files+file:///a", "files2+file:///a") == ["files+file:///a"]


@pytest.mark.parametrize("item", [{}, {"name": 5}, {"name": None}])
def test_what_has_no_name_is_shown_to_nobody(item: dict[str, Any]) -> None:
    assert permitted_items(SETTINGS, BOB, "tools/list", None, [item]) == []


def test_without_policies_everybody_is_shown_everything() -> None:
    assert permitted_items(Settings.demo(), None, "tools/list", None, [{"name": "echo"}]) == [{"name": "echo"}]
