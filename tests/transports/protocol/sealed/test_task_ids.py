"""Ids of tasks: whose they are, and who runs them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.task_ids import (
    TaskId,
    addressed_task,
    answered_question,
    question_id,
    read_task_id,
    sealed_task_id,
)

SEAL = Seal(b"0123456789abcdef")
TASK = TaskId("files", "http://a", "ada", "T1")
_texts = st.text(max_size=20)


@given(st.builds(TaskId, _texts, _texts, _texts, _texts, _texts, _texts))
def test_a_task_comes_back_as_it_was_sealed_and_under_the_same_id_each_time(task: TaskId) -> None:
    shown = sealed_task_id(SEAL, task)
    assert read_task_id(SEAL, shown) == task
    assert shown == sealed_task_id(SEAL, task)
    assert shown.isascii()
    assert shown.isprintable()


@given(st.builds(TaskId, _texts, _texts, _texts, _texts), st.builds(TaskId, _texts, _texts, _texts, _texts))
def test_tasks_of_different_servers_or_people_never_have_the_same_id(one: TaskId, other: TaskId) -> None:
    assert (sealed_task_id(SEAL, one) == sealed_task_id(SEAL, other)) == (one == other)


@pytest.mark.parametrize(
    "shown", ["", "T1", "x" * 70_000, "ä", sealed_task_id(SEAL, TASK)[:-1], sealed_task_id(SEAL, TASK) + "A"]
)
def test_what_this_gateway_never_sealed_is_nobodys_task(shown: str) -> None:
    assert read_task_id(SEAL, shown) is None


def test_another_key_opens_nothing_and_makes_other_ids() -> None:
    other = Seal(b"fedcba9876543210")
    assert read_task_id(other, sealed_task_id(SEAL, TASK)) is None
    assert sealed_task_id(other, TASK) != sealed_task_id(SEAL, TASK)


@pytest.mark.parametrize("kind", ["session", "request-state"])
def test_a_token_of_another_kind_is_no_task(kind: str) -> None:
    assert read_task_id(SEAL, SEAL.seal_alike(kind, b"content")) is None


@pytest.mark.parametrize(
    ("params", "found"),
    [
        (json.dumps({"taskId": sealed_task_id(SEAL, TASK)}), TASK),
        ('{"taskId": "T1"}', None),
        ('{"taskId": 1}', None),
        ("{}", None),
        ("", None),
        ("[]", None),
    ],
)
def test_a_request_is_about_the_task_that_it_names(params: str, found: TaskId | None) -> None:
    assert addressed_task(SEAL, params.encode()) == found


@given(_texts)
def test_the_answer_to_a_question_finds_the_task_that_has_asked(key: str) -> None:
    asked = question_id(sealed_task_id(SEAL, TASK), key)
    assert answered_question(SEAL, asked) == (TASK, key)


@pytest.mark.parametrize("request_id", [1, None, "", "/", "T1/elicitation-1", sealed_task_id(SEAL, TASK), "/" * 70_000])
def test_an_answer_to_anything_else_finds_no_task(request_id: object) -> None:
    assert answered_question(SEAL, request_id) is None
