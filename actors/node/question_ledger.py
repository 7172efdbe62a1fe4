"""Requests that wait for cells: who has still to answer, and what has been said so far. Pure."""

from __future__ import annotations

import math
from typing import Any

import attrs


@attrs.define(kw_only=True)
class Question:
    """A request to the node that ends when everybody has answered or is gone, or when its time is over.

    asker:   who is answered then, under request_id; opaque here.
    waiting: names of those that have not answered.
    answers: {name: what it has said of itself}.
    outcome: what a command is answered; None for a question about the status.
    """

    asker: object
    request_id: str
    due_s: float
    waiting: set[str]
    answers: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    outcome: dict[str, Any] | None


class QuestionLedger:
    """The questions that are open. Each method gives those that have ended by it: every question ends once."""

    def __init__(self) -> None:
        self._open: dict[str, Question] = {}

    def ask(self, question_id: str, question: Question) -> list[Question]:
        """Wait for the answers to a question; one that waits for nobody ends at once."""
        self._open[question_id] = question
        return self._take_ended()

    def answered(self, question_id: str, name: str, answer: dict[str, Any] | None = None) -> list[Question]:
        """One of those asked has answered, perhaps with no more than that; nobody minds an answer that comes too late."""
        if (question := self._open.get(question_id)) is not None:
            question.waiting.discard(name)
            if answer is not None:
                question.answers[name] = answer
        return self._take_ended()

    def settled(self, question_id: str, outcome: dict[str, Any]) -> list[Question]:
        """What became of a command is known: nobody else need answer."""
        if (question := self._open.get(question_id)) is not None:
            question.outcome = outcome
            question.waiting.clear()
        return self._take_ended()

    def is_open(self, question_id: str) -> bool:
        return question_id in self._open

    def gone(self, name: str) -> list[Question]:
        """It has ended and will answer nothing any more; who runs under its name next has not been asked."""
        for question in self._open.values():
            question.waiting.discard(name)
        return self._take_ended()

    def expire(self, now_s: float) -> list[Question]:
        """End what has waited long enough."""
        return self._take_ended(now_s)

    def _take_ended(self, now_s: float = -math.inf) -> list[Question]:
        ended = [each for each, question in self._open.items() if not question.waiting or question.due_s <= now_s]
        return [self._open.pop(each) for each in ended]

    def assert_consistent(self) -> None:
        """Raises: AssertionError where an open question waits for nobody."""
        assert all(question.waiting for question in self._open.values()), self._open
