"""Which tools a question finds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcp_gateway.transports.protocol.curation.tool_index import ToolIndex, words_of
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from tests.transports.protocol.curation.tool_corpus import QUESTIONS, tools

PLACE_OF = {tool["name"]: place for place, tool in enumerate(tools())}


def raw(listed: list[Any]) -> list[dict[str, Raw]]:
    return [members(json.dumps(tool).encode()) for tool in listed]


@pytest.fixture(scope="module")
def index() -> ToolIndex:
    return ToolIndex(raw(tools()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("readFiles", ["read", "file"]),
        ("files__read_file", ["file", "read", "file"]),
        ("Reads a file from the disk, as bytes.", ["read", "file", "disk", "byte"]),
        ("status boxes entries classes bus", ["status", "box", "entry", "class", "bus"]),
        ("größe 日本 HTTPServer2", ["größe", "日本", "httpserver2"]),
        ("_-./", []),
    ],
)
def test_words_are_those_that_tell_something(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_the_right_one_of_a_thousand_tools_is_among_the_first_five_for_nine_in_ten_questions(index: ToolIndex) -> None:
    assert (len(PLACE_OF), len(QUESTIONS)) == (1_000, 50)
    missed = [question for question, name in QUESTIONS.items() if PLACE_OF[name] not in index.find(question, 5)]
    assert len(missed) <= 5, missed


def test_a_question_takes_a_few_milliseconds_and_no_more(index: ToolIndex) -> None:
    """The promise is 5 ms each; processor time of the best of three rounds, since the machine does other things as well."""
    rounds = []
    for _ in range(3):
        started_s = time.process_time()
        for question in QUESTIONS:
            index.find(question, 5)
        rounds.append((time.process_time() - started_s) / len(QUESTIONS))
    assert min(rounds) < 0.005


GOLDEN = [
    {"name": "read_file", "description": "Reads a file from disk."},
    {"name": "write_file", "description": "Writes a file to disk.", "inputSchema": {"properties": {"path": {}, "text": {}}}},
    {"name": "list_mail", "title": "Inbox", "description": "Lists messages, newest first."},
    {"name": "x", "inputSchema": {"properties": {"query": {"description": "Words of a message to look for"}}}},
]


@pytest.mark.parametrize(
    ("question", "order"),
    [
        ("read a file", [0, 1]),
        ("file", [0, 1]),
        ("messages", [2, 3]),
        ("inbox", [2]),
        ("text path", [1]),
        ("nothing of the kind", []),
        ("", []),
        ("the a of", []),
    ],
)
def test_golden_results(question: str, order: list[int]) -> None:
    assert ToolIndex(raw(GOLDEN)).find(question, 5) == order


def test_as_many_are_found_as_are_wanted(index: ToolIndex) -> None:
    assert [len(index.find("create", most)) for most in (1, 5, 20)] == [1, 5, 20]


@given(st.lists(st.one_of(st.text(), st.dictionaries(st.text(), st.text(), max_size=2), st.none(), st.integers()), max_size=4))
def test_whatever_servers_put_into_a_tool_it_can_be_indexed(values: list[Any]) -> None:
    names = ("name", "title", "description", "inputSchema")
    tool = dict(zip(names, values, strict=False))
    odd = [
        tool,
        {"inputSchema": {"properties": values}},
        {"inputSchema": {"properties": {str(place): each for place, each in enumerate(values)}}},
    ]
    ToolIndex(raw(odd)).find("anything", 5)


def test_no_tools_are_none() -> None:
    assert ToolIndex([]).find("read", 5) == []


def test_ten_thousand_tools_that_say_as_much_as_they_may_hold_nobody_up_for_long() -> None:
    """Attack: a server lists tools without end, to keep the loop busy."""
    loud = raw([{"name": f"t{number}", "description": "word other third " * 100} for number in range(10_000)])
    started_s = time.process_time()
    ToolIndex(loud)
    assert time.process_time() - started_s < 5.0


def test_a_tool_that_says_everything_again_and_again_does_not_come_first() -> None:
    """Attack: words that nobody reads, to be found by every question."""
    loud = {"name": "t", "description": "read file write message inbox disk " * 100}
    found = ToolIndex(raw([loud, *GOLDEN])).find("read file", 5)
    assert found[0] == 1
