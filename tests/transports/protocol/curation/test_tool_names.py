"""By which names tools are served: lists and calls agree, whatever servers call their tools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation import tool_names
from mcp_gateway.transports.protocol.curation.portable_names import portable
from mcp_gateway.transports.protocol.curation.tool_choice import ToolChoice
from mcp_gateway.transports.protocol.curation.tool_names import ToolNames

LONG = "read_" + "x" * 80


def made(patterns: dict[str, list[str]] | None = None, rename: dict[str, str] | None = None, longest: int = 64) -> ToolNames:
    return ToolNames(ToolChoice(patterns or {}), rename or {}, longest)


def test_a_renamed_tool_has_its_new_name_alone() -> None:
    names = made(rename={"read": "fetch"})
    assert (names.listed("read"), names.called("fetch"), names.called("read")) == ("fetch", "read", None)


def test_a_name_that_is_given_wins_over_a_servers_own() -> None:
    names = made(rename={"read": "write"})
    assert [names.listed(own) for own in ("read", "write")] == ["write", None]
    assert names.called("write") == "read"


def test_two_tools_may_change_their_names() -> None:
    names = made(rename={"a": "b", "b": "a"})
    assert [(names.listed(own), names.called(own)) for own in ("a", "b")] == [("b", "b"), ("a", "a")]


def test_what_is_denied_is_served_by_no_name() -> None:
    names = made({"deny": ["read", LONG]}, {"read": "fetch"})
    assert [names.listed(own) for own in ("read", LONG)] == [None, None]
    assert [names.called(here) for here in ("fetch", "read", LONG)] == [None, None, None]
    assert names.called(portable(LONG)) == portable(LONG)  # that may be a name of the server's own: it will say


def test_a_portable_name_is_understood_once_the_list_was_seen_and_the_long_one_never() -> None:
    names = made()
    here = portable(LONG)
    assert names.has_to_look_up(here)
    assert names.listed(LONG) == here
    assert not names.has_to_look_up(here)
    assert (names.called(here), names.called(LONG)) == (LONG, None)
    assert (names.take_untold(), names.take_untold()) == ({LONG: here}, {})


def test_a_servers_own_name_that_looks_like_one_that_was_made_belongs_to_the_first_of_the_list() -> None:
    forged = portable(LONG)
    first, last = made(), made()
    assert [first.listed(own) for own in (LONG, forged)] == [forged, None]
    assert [last.listed(own) for own in (forged, LONG)] == [forged, None]
    assert (first.called(forged), last.called(forged)) == (LONG, forged)


def test_names_as_they_are_need_no_list() -> None:
    names = made(longest=0)
    assert (names.listed(LONG), names.called(LONG), names.has_to_look_up(portable(LONG))) == (LONG, LONG, False)


def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_names, "MOST_KNOWN", 3)
    names = made()
    assert [names.listed(f"tool.{number}") is not None for number in range(5)] == [True, True, True, False, False]
    assert names.listed("tool.1") is not None


OWN = st.sampled_from(["a", "b", "c", "a.b", "x" * 70, portable("a.b"), portable("x" * 70)])


@given(
    st.lists(OWN, unique=True),
    st.dictionaries(OWN, OWN, max_size=3).filter(lambda table: len(set(table.values())) == len(table)),
    st.fixed_dictionaries({}, optional={"allow": st.lists(OWN, min_size=1), "deny": st.lists(OWN)}),
    st.sampled_from([0, 20, 64]),
)
def test_what_is_listed_can_be_called_and_nothing_else(
    own: list[str], rename: dict[str, str], patterns: dict[str, Any], longest: int
) -> None:
    names = made(patterns, rename, longest)
    listed = {here: name for name in own if (here := names.listed(name)) is not None}
    assert sum(names.listed(name) is not None for name in own) == len(listed)
    for here, name in listed.items():
        assert not names.has_to_look_up(here)
        assert names.called(here) == name
    for name in {*own, *rename, *rename.values()} - listed.keys():
        reached = names.called(name)
        assert reached is None or reached not in own
