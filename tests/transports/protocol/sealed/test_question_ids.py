"""Ids of questions: who asked whom."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.sealed.question_ids import QuestionId, read_question_id, sealed_question_id
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession

STATE = SessionState("key", "", "2025-11-25", "", b"", (UpstreamSession("files", "files#0", "first", "2025-11-25"),))
SEAL = Seal(b"0123456789abcdef")
QUESTION = QuestionId("key", "files", b"place", b"5")
_texts = st.text(max_size=20)
_ids = (st.text(max_size=20) | st.integers(-(2**80), 2**80)).map(lambda value: json.dumps(value).encode())
_questions = st.builds(QuestionId, _texts, _texts, st.binary(max_size=8), _ids)


@given(_questions)
def test_a_question_is_known_by_its_id_again_and_has_the_same_each_time(question: QuestionId) -> None:
    shown = sealed_question_id(SEAL, question)
    assert read_question_id(SEAL, shown) == question
    assert shown == sealed_question_id(SEAL, question)
    assert isinstance(jsonrpc.id_value(shown), str)


@given(_questions, _questions)
def test_questions_of_other_servers_or_to_other_clients_never_have_the_same_id(one: QuestionId, other: QuestionId) -> None:
    assert (sealed_question_id(SEAL, one) == sealed_question_id(SEAL, other)) == (one == other)


@pytest.mark.parametrize(
    "shown",
    [
        *(b"null", b"5", b'""', b'"files:5"', b"[]", b"9" * 400, b'"' + b"x" * 70_000 + b'"', b'"\\ud800"'),
        sealed_question_id(Seal(b"fedcba9876543210"), QUESTION),
        json.dumps(SEAL.seal_alike("task", b"x")).encode(),
        sealed_question_id(SEAL, QUESTION)[:-2] + b'"',
    ],
)
def test_what_this_gateway_never_gave_answers_nobody(shown: bytes) -> None:
    assert read_question_id(SEAL, shown) is None


@given(st.none() | st.integers() | st.floats() | st.text())
def test_any_id_is_understood_or_is_nobodys(shown: object) -> None:
    assert read_question_id(SEAL, json.dumps(shown).encode()) is None


def test_a_question_is_one_of_the_session_that_its_server_had_when_it_asked() -> None:
    asked = QuestionId.of(STATE, "files", b"0")
    assert asked.is_asked_in(STATE)
    for other in (
        msgspec.structs.replace(STATE, key="other"),
        msgspec.structs.replace(STATE, upstreams=()),
        msgspec.structs.replace(STATE, upstreams=(msgspec.structs.replace(STATE.upstreams[0], session_id="second"),)),
        msgspec.structs.replace(STATE, upstreams=(msgspec.structs.replace(STATE.upstreams[0], replica="files#1"),)),
    ):
        assert not asked.is_asked_in(other)
    assert not QuestionId.of(None, "files", b"0").is_asked_in(STATE)
