"""Names under which servers are served: readable, usable in every client, and the same in every start."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.names import LONGEST_NAME, served_names
from mcp_gateway.config.settings import Settings


@pytest.mark.parametrize(
    ("written", "served"),
    [
        ("files", "files"),
        ("my_server-2", "my_server-2"),
        ("Sentry", "sentry"),
        ("Framelink MCP for Figma", "framelink-mcp-for-figma"),
        ("awslabs.aws-api-mcp-server", "awslabs-aws-api-mcp-server"),
        ("@21st-dev/magic", "mcp-21st-dev-magic"),
        ("0dai", "mcp-0dai"),
        ("github.com/owner/repo", "github-com-owner-repo"),
        ("a__b", "a_b"),
        ("Météo Zürich", "meteo-zurich"),
        ("Straße", "strasse"),
        ("(beta) notes!", "beta-notes"),
        ("天气", "mcp-fc4711"),
        ("天气 weather", "weather"),
        ("", "mcp-000000"),
        ("x" * 200, "x" * 23 + "-7ecb6b"),
    ],
)
def test_a_name_is_made_readable_by_a_fixed_rule(written: str, served: str) -> None:
    """Golden values: they are part of the names of tools, which people write down."""
    assert served_names([written]) == [served]


def test_names_that_come_to_the_same_are_told_apart_whatever_their_order() -> None:
    one_way = dict(zip(names := ["GitHub", "github", "Git Hub", "git.hub"], served_names(names), strict=True))
    assert one_way == {"GitHub": "github-5c9de8", "github": "github", "Git Hub": "git-hub-102672", "git.hub": "git-hub-07097a"}
    assert dict(zip(names[::-1], served_names(names[::-1]), strict=True)) == one_way


def test_a_name_that_another_has_is_left_to_it() -> None:
    assert served_names(["files", "My_Files"], taken=["Files", "my-files"]) == ["files-063540", "my_files-5244bf"]
    assert served_names(["a", "a", "a"])[0] == "a"
    assert len(set(served_names(["a"] * 50))) == 50


@given(written=st.lists(st.text(max_size=50) | st.sampled_from(["a", "A", "a_", "a__", "a-b", "a_b", "\ud800", "1"]), max_size=8))
def test_any_names_make_backends_that_the_settings_take(written: list[str]) -> None:
    served = served_names(written)
    assert served == served_names(written)
    assert all(re.fullmatch(r"[a-z][a-z0-9_-]*", name) and len(name) <= LONGEST_NAME for name in served)
    Settings(backends=tuple(BackendSettings(name=name, builtin="demo") for name in served))
