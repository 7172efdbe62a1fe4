"""A star stands for any run of characters, and no text makes matching slow."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.merging.wildcard import Wildcard


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("tools/list", ["tools/list"], ["tools/lists", "Tools/list", "tools", ""]),
        ("tools/call/files__*", ["tools/call/files__", "tools/call/files__a/b"], ["tools/call/file", "x/tools/call/files__a"]),
        ("*", ["", "tools/call/x", "a\nb"], []),
        ("*/read/*", ["resources/read/x", "/read/"], ["read/", "resources/readx"]),
        ("*.txt", [".txt", "resources/read/a.txt.txt"], ["a.txt2"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("ab*ba", ["abba"], ["aba"]),
        ("a*b*c", ["abc", "a.b.b.c", "abcbc"], ["acb", "ac"]),
        ("a*bc*c", ["abcc", "abcbcc"], ["abc"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("a?[b].c", ["a?[b].c"], ["axb.c", "a?b.c"]),
    ],
)
def test_a_star_stands_for_any_run_and_everything_else_for_itself(pattern, matching, others):
    wildcard = Wildcard(pattern)
    assert [text for text in matching if not wildcard.matches(text)] == []
    assert [text for text in others if wildcard.matches(text)] == []


@settings(max_examples=500, deadline=None)
@given(pattern=st.text(alphabet="ab*/", max_size=8), text=st.text(alphabet="ab/", max_size=12))
def test_matching_agrees_with_a_regular_expression(pattern, text):
    reference = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    assert Wildcard(pattern).matches(text) is bool(reference.fullmatch(text))
