"""Names of any use are listed as they are; longer ones are left out and counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.transports.protocol.merging.list_bounds import LONGEST_NAME, LONGEST_URI, bounded_list


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


@pytest.mark.parametrize("result", [b"[]", b"{}", listed("tools", 1), listed("tools", {"name": ["x" * 5000]}), b"[" * 5000])
def test_what_is_no_such_list_stays_as_it_is(result: bytes) -> None:
    assert bounded_list("tools/list", result + b" " * LONGEST_NAME)[1] == 0


def test_other_results_are_not_looked_at() -> None:
    result = listed("tools", {"name": "x" * 5000})
    assert bounded_list("tools/call", result) == (result, 0)
