"""What an operator's page says is one known action about what it names, or refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.operators.actions import COMMANDS, LARGEST_BODY, LONGEST_WORD, read_action
from mcp_gateway.transports.protocol.mcp.refusals import Refused


def body(**words: Any) -> bytes:
    return json.dumps(words).encode()


def test_an_action_says_what_it_is_about() -> None:
    action = read_action(body(command="drain", name="files", replica="http://a/mcp"))
    assert (action.command, action.about) == ("drain", "files http://a/mcp")
    assert read_action(body(command="drain", name="files", replica="")).words == {"name": "files"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_action_needs_its_words_and_takes_no_others(command: str) -> None:
    needed, others = COMMANDS[command]
    words = {name: "x" for name in (*needed, *others)}
    assert read_action(body(command=command, **words)).words == words
    for wrong in ({**words, needed[0]: ""}, {**words, "signal": "9"}):
        with pytest.raises(Refused) as refused:
            read_action(body(command=command, **wrong))
        assert refused.value.reason == "invalid_params"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b"", "parse_error"),
        (b"[]", "parse_error"),
        (b"[" * 4_000, "parse_error"),
        (body(command="drain", name=1), "parse_error"),
        (body(command="drain", name={"a": "b"}), "parse_error"),
        (body(command="kill", child="cell/0"), "invalid_params"),
        (body(name="files"), "invalid_params"),
        (body(command="revoke", subject="*"), "invalid_params"),
        (body(command="revoke", subject="https://id.example a*"), "invalid_params"),
        (body(command="drain", name="x" * (LONGEST_WORD + 1)), "invalid_params"),
        (b" " * (LARGEST_BODY + 1), "too_large"),
    ],
)
def test_what_is_none_is_refused_with_a_reason(wrong: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        read_action(wrong)
    assert refused.value.reason == reason


def test_the_longest_word_and_the_largest_body_are_taken() -> None:
    action = body(command="drain", name="x" * LONGEST_WORD)
    assert read_action(action + b" " * (LARGEST_BODY - len(action))).command == "drain"


@given(st.binary(max_size=200) | st.dictionaries(st.text(max_size=5), st.text(max_size=5)).map(lambda each: body(**each)))
def test_whatever_is_sent_is_an_action_or_refused(sent: bytes) -> None:
    with contextlib.suppress(Refused):
        assert read_action(sent).command in COMMANDS
