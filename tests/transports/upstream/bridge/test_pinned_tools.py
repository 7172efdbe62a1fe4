"""Tools that have to stay what they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.protocol.curation.tool_pins import Comparison, Definition, Pin, compare
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.pinned_tools import CHANGED, PinnedTools
from tests.doubles.legacy_bridge import SEAL


class Pins:
    """In memory, of one backend."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Pin] = {}

    def take(self, backend: str, listed: Mapping[str, Definition]) -> Comparison:
        compared = compare(self.known, listed)
        self.known.update(compared.written)
        return compared

    def is_changed(self, backend: str, tool: str) -> bool:
        return any(pin.approved != pin.seen for (name, _), pin in self.known.items() if name == tool)


def page(**descriptions: str) -> bytes:
    return json.dumps({"tools": [{"name": name, "description": text} for name, text in descriptions.items()]}).encode()


@pytest.mark.parametrize("is_enforced", [True, False])
def test_a_change_is_told_of_once_and_withheld_where_that_is_enforced(is_enforced: bool) -> None:
    told: list[tuple[str, Mapping[str, Any]]] = []
    site = BridgeSite(cell_name="cell/0", seal=SEAL, publish=lambda topic, payload: told.append((topic, payload)))
    pinned = PinnedTools(site, Pins(), "files", is_enforced=is_enforced)
    assert pinned.withheld_of(page(a="1", b="1")) == frozenset()
    withheld = {"a"} if is_enforced else frozenset()
    assert [pinned.withheld_of(page(a="2", b="1")) for _ in range(2)] == [withheld, withheld]
    assert (pinned.withholds("a"), pinned.withholds("b")) == (is_enforced, False)
    assert told == [(CHANGED, {"backend": "files", "tool": "a", "is_served": not is_enforced, "count": 1})]


def test_a_server_that_changes_all_of_its_tools_is_told_of_with_some() -> None:
    told: list[Mapping[str, Any]] = []
    site = BridgeSite(cell_name="cell/0", seal=SEAL, publish=lambda _, payload: told.append(payload))
    pinned = PinnedTools(site, Pins(), "files", is_enforced=True)
    pinned.withheld_of(page(**{f"t{number}": "1" for number in range(30)}))
    assert len(pinned.withheld_of(page(**{f"t{number}": "2" for number in range(30)}))) == 30
    assert (len(told), told[0]["count"]) == (20, 30)


def test_what_is_no_list_is_an_error() -> None:
    pinned = PinnedTools(BridgeSite(cell_name="cell/0", seal=SEAL), Pins(), "files", is_enforced=True)
    with pytest.raises(msgspec.DecodeError):
        pinned.withheld_of(b'{"tools": 3}')
