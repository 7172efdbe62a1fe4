"""What nodes write of owners: read from their logs, and judged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.scripts.chaos_harness.ownership_history import broken_promises, read_history


def record(event: str, node: str, at_s: float, **more: Any) -> dict[str, Any]:
    return {"event": event, "thing": "t", "node": node, "term": 1, "began_s": at_s, "ended_s": at_s + 0.1, **more}


def got(node: str, at_s: float, before: str, claim: str, token: int) -> list[dict[str, Any]]:
    more = {"before": before, "claim": claim, "tried": "acquired"}
    return [record("trying", node, at_s, **more), record("acquired", node, at_s, fence=token, **more)]


def used(node: str, at_s: float, token: int, use: int = 1) -> dict[str, Any]:
    return record("used", node, at_s, fence=token, use=use)


def left(node: str, at_s: float, token: int, lease_until_s: float, use: int = 1) -> dict[str, Any]:
    return record("left", node, at_s, fence=token, lease_until_s=lease_until_s, use=use)


A_HAD_IT = [*got("a", 0, "", "c1", 5), used("a", 1, 5)]
B_GOT_IT = [*got("b", 20, "c1", "c2", 9), used("b", 21, 9)]

GOOD = {
    "handed on": [*A_HAD_IT, left("a", 15, 5, 16), *B_GOT_IT],
    "stopped, and late to say that it has left": [*A_HAD_IT, *B_GOT_IT, left("a", 40, 5, 15)],
    "used twice by one": [*A_HAD_IT, left("a", 2, 5, 8), used("a", 3, 5, use=2)],
    "another was refused": [
        *A_HAD_IT,
        record("trying", "b", 0, before="", claim="c9", tried="acquired"),
        record("refused", "b", 0, before="", claim="c9", tried="acquired"),
    ],
    "killed before it knew": [
        record("trying", "a", 0, before="", claim="c1", tried="acquired"),
        record("read", "b", 15, claim="c1"),
        *B_GOT_IT,
    ],
    "let go": [
        *A_HAD_IT,
        left("a", 2, 5, 8),
        record("trying", "a", 3, before="c1", claim="c1", tried="released"),
        record("released", "a", 3, before="c1", claim="c1", tried="released", fence=5),
        *got("b", 4, "", "c2", 9),
    ],
}
BAD = {
    "two owners at a time": ([*A_HAD_IT, *B_GOT_IT, left("a", 40, 5, 41)], "b uses it while a does"),
    "one that never left": ([*A_HAD_IT, *B_GOT_IT], "b uses it while a does"),
    "two winners": ([*A_HAD_IT, *got("b", 20, "", "c2", 9)], "no order of its operations"),
    "a token that does not rise": ([*got("a", 0, "", "c1", 5), *got("b", 20, "c1", "c2", 5)], "follows token 5"),
    "used without being got": ([used("a", 1, 5)], "never got"),
    "an older owner that comes back": (
        [*A_HAD_IT, left("a", 15, 5, 16), *B_GOT_IT, left("b", 22, 9, 30), used("a", 25, 5, use=2)],
        "under token 5 after 9",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_keeps_the_promise_is_found_to(name: str) -> None:
    assert broken_promises(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_one_that_breaks_it_is_told_with_what_is_wrong(name: str) -> None:
    history, text = BAD[name]
    assert text in "\n".join(broken_promises(history))


def test_what_a_killed_node_used_it_has_left() -> None:
    assert broken_promises([*A_HAD_IT, *B_GOT_IT], {"a": 10.0}) == []


def test_lines_of_any_log_format_are_read_and_unfinished_ones_left_out() -> None:
    found = got("a", 0, "", "c1", 5)
    text = f"INFO x: owner-record {json.dumps(found[0])}"
    as_json = json.dumps({"level": "info", "message": f"owner-record {json.dumps(found[1])}", "more": 1})
    assert read_history([text, as_json, "something else", text[:-9]]) == found
