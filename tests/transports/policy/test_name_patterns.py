"""Patterns of policies: over names, and over what stands for many names at once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.policy.name_patterns import NamePatterns, bare_uris, plain_uris, template_ends, topics_from
from mcp_gateway.transports.protocol.topics.topic_log import InvalidTopic, TopicPattern


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("file:///docs/a", "file:///docs/a"),
        ("FILE:///docs/a", "file:///docs/a"),
        ("file:///docs/../etc/passwd", "file:///etc/passwd"),
        ("file:///docs/%2e%2E/etc/passwd", "file:///etc/passwd"),
        ("file:///docs/..%2fetc", "file:///etc"),
        ("file:///docs\\..\\etc", "file:///etc"),
        ("file:////docs//a/./b", "file:///docs/a/b"),
        ("file:///docs/%61", "file:///docs/a"),
        ("file:///../../etc", "file:///etc"),
        ("file:///docs/", "file:///docs/"),
        ("file:///docs/a/..", "file:///docs/"),
        ("http://HOST/A", "http://host/A"),
        ("demo:a/../b", "demo:b"),
        ("demo://welcome", "demo://welcome"),
        (" \x01file:///docs/a\x00 ", "file:///docs/a"),
        ("fi\nle:///do\tcs/.\r./etc", "file:///etc"),
        ("http://allowed@host/a", "http://host/a"),
        ("http://allowed%40host/a", "http://host/a"),
        ("*", "*"),
        ("file:///docs/*", "file:///docs/*"),
        ("", ""),
    ],
)
def test_a_uri_is_read_as_lenient_servers_read_it(uri: str, plain: str) -> None:
    assert plain_uris(uri)[0] == plain


@pytest.mark.parametrize(
    ("uri", "others"),
    [
        ("demo://public/../readme", ("demo://readme",)),
        ("demo://public/%2e%2e/%2e%2e/readme", ("demo://readme",)),
        ("demo://../readme", ("demo://readme",)),
        ("demo://public/a", ()),
        ("demo:public/../readme", ()),
        ("http://HOST/a/..b", ("http://HOST/a/..b",)),
    ],
)
def test_for_some_servers_all_that_follows_the_scheme_is_a_path(uri: str, others: tuple[str, ...]) -> None:
    assert plain_uris(uri)[1:] == others


@pytest.mark.parametrize(
    ("uri", "bare"),
    [
        ("file:///etc/passwd?x=1", "file:///etc/passwd"),
        ("file:///etc/passwd#x", "file:///etc/passwd"),
        ("file:///etc/pass%77d?../..", "file:///etc/passwd"),
        ("http://host:80/a?b", "http://host/a"),
        ("http://host:", "http://host"),
        ("http://[::1]:80/a", "http://[::1]/a"),
        ("http://[::1]/a", "http://[::1]/a"),
        ("demo:a:1/b", "demo:a:1/b"),
        ("", ""),
    ],
)
def test_a_uri_is_bare_of_what_servers_may_pass_over(uri: str, bare: str) -> None:
    assert bare_uris(uri)[0] == bare


@given(st.text("aA/.:%2eE\\*", max_size=20))
def test_what_is_plain_stays_as_it_is_but_for_more_escapes(uri: str) -> None:
    for once in plain_uris(uri):
        assert "/../" not in once
        if "%" not in once and "//" not in once and ":" not in once.partition(":")[2]:
            assert plain_uris(once) == (once,)


_patterns = st.lists(st.text("ab*", max_size=5), max_size=4)


@given(patterns=_patterns, text=st.text("ab", max_size=8))
def test_one_of_several_patterns_must_match(patterns: list[str], text: str) -> None:
    references = [re.compile(".*".join(map(re.escape, each.split("*")))) for each in patterns]
    assert NamePatterns(patterns).match(text) is any(each.fullmatch(text) for each in references)


@given(patterns=_patterns, start=st.text("ab", max_size=4), end=st.text("ab", max_size=4), middle=st.text("ab", max_size=4))
def test_many_texts_at_once_are_judged_as_each_of_them(patterns: list[str], start: str, end: str, middle: str) -> None:
    """What is said of all holds for each; what is excluded of all holds for none."""
    names = NamePatterns(patterns)
    if names.match_all_from(start):
        assert names.match(start + middle)
    if not names.may_match_between(start, end):
        assert not names.match(start + middle + end)


@given(pattern=st.sampled_from(["all", "*", "a", "a.b", "a.*", "a.b.*"]), topic=st.text("ab.", min_size=1, max_size=6))
def test_a_pattern_of_topics_begins_as_all_that_it_stands_for(pattern: str, topic: str) -> None:
    start = topics_from(pattern)
    try:
        followed = TopicPattern(pattern)
        assert followed.matches(topic) is (topic == pattern if start is None else topic.startswith(start))
    except InvalidTopic:
        assert start is None


def test_a_template_says_how_its_uris_begin_and_end() -> None:
    assert template_ends("file:///{path}") == ("file:///", "")
    assert template_ends("db://{table}/rows/{id}/raw") == ("db://", "/raw")
    assert template_ends("db://all") == ("db://all", "db://all")
