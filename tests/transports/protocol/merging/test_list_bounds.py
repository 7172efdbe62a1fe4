"""Names of any use are listed as they are; longer ones are left out and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS
from mcp_gateway.transports.protocol.merging.list_bounds import (
    LONGEST_DESCRIPTION,
    LONGEST_NAME,
    LONGEST_TITLE,
    LONGEST_URI,
    bounded_list,
    shortened,
)


def listed(member: str, *items: Any) -> bytes:
    return json.dumps({member: items, "nextCursor": "c", "_meta": {"x": "y" * 2000}}).encode()


@pytest.mark.parametrize(
    ("method", "member", "key", "longest"),
    [
        ("tools/list", "tools", "name", LONGEST_NAME),
        ("prompts/list", "prompts", "name", LONGEST_NAME),
        ("resources/list", "resources", "name", LONGEST_NAME),
        ("resources/list", "resources", "uri", LONGEST_URI),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", LONGEST_URI),
    ],
)
@pytest.mark.parametrize("letter", ["x", "é", "\u202e", "\x00"])
def test_a_name_is_kept_up_to_the_bound_and_left_out_past_it(
    method: str, member: str, key: str, longest: int, letter: str
) -> None:
    fine, long = {key: letter * longest, "a": [1]}, {key: letter * (longest + 1)}
    result = listed(member, fine)
    assert bounded_list(method, result) == (result, 0)
    bounded, left_out = bounded_list(method, listed(member, long, fine, long))
    assert left_out == 2
    assert json.loads(bounded) == json.loads(result)


@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"])
@pytest.mark.parametrize(("key", "longest"), [("title", LONGEST_TITLE), ("description", LONGEST_DESCRIPTION)])
@pytest.mark.parametrize("letter", ["x", "é", "\u202e", "\x00"])
def test_a_text_is_kept_up_to_the_bound_and_cut_past_it(method: str, key: str, longest: int, letter: str) -> None:
    member = LIST_MEMBERS[method][0]
    fine = {"name": "n", key: letter * longest, "a": [1]}
    long = {"name": "m", key: letter * (longest + 1), "a": [1], "inputSchema": {"type": "object"}}
    result = listed(member, fine)
    assert bounded_list(method, result) == (result, 0)
    bounded, changed = bounded_list(method, listed(member, long, fine, {"name": "x" * (LONGEST_NAME + 1)}))
    assert changed == 2
    cut, same = json.loads(bounded)[member]
    assert same == fine
    assert cut == {**long, key: letter * (longest - 1) + "…"}


@given(st.text(), st.integers(1, 20))
def test_a_shortened_text_is_never_longer_and_begins_as_before(text: str, longest: int) -> None:
    found = shortened(text, longest)
    assert len(found) <= longest
    assert found == text or (len(text) > longest and text.startswith(found[:-1]) and found.endswith("…"))


@pytest.mark.parametrize("result", [b"[]", b"{}", listed("tools", 1), listed("tools", {"name": ["x" * 5000]}), b"[" * 5000])
def test_what_is_no_such_list_stays_as_it_is(result: bytes) -> None:
    assert bounded_list("tools/list", result + b" " * LONGEST_NAME)[1] == 0


def test_other_results_are_not_looked_at() -> None:
    result = listed("tools", {"name": "x" * 5000})
    assert bounded_list("tools/call", result) == (result, 0)
