"""Which tools are served, by patterns."""

from __future__ import annotations

import time

import pytest

from mcp_gateway.transports.protocol.curation.tool_choice import ToolChoice


@pytest.mark.parametrize(
    ("patterns", "served"),
    [
        ({}, ["read_file", "read_secret", "write", "a.b"]),
        ({"allow": ["read_*"]}, ["read_file", "read_secret"]),
        ({"deny": ["read_*"]}, ["write", "a.b"]),
        ({"allow": ["read_*", "write"], "deny": ["*secret"]}, ["read_file", "write"]),
        ({"allow": ["*"], "deny": []}, ["read_file", "read_secret", "write", "a.b"]),
        ({"allow": ["a.b", "a*c"]}, ["a.b"]),
        ({"allow": ["axb", "READ_FILE", "read"]}, []),
        ({"deny": ["*"]}, []),
    ],
)
def test_a_tool_is_served_where_it_is_allowed_and_not_denied(patterns: dict[str, list[str]], served: list[str]) -> None:
    choice = ToolChoice(patterns)
    assert [name for name in ["read_file", "read_secret", "write", "a.b"] if choice.serves(name)] == served


def test_a_pattern_of_many_stars_is_no_work_for_a_name_that_nearly_matches() -> None:
    choice = ToolChoice({"deny": ["*a" * 40 + "b"]})
    started_s = time.process_time()
    assert choice.serves("a" * 20_000)
    assert time.process_time() - started_s < 1.0
