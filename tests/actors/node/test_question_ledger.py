"""Question ledger: every question ends once, when nobody is waited for any more or its time is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_gateway.actors.node.question_ledger import Question, QuestionLedger

CELLS = ("cell/0", "cell/1", "cell/2")
DONE = {"ok": True}
ENDED = {"error": "the process ended"}


def question(*waiting: str, outcome: dict[str, Any] | None = None, due_s: float = 5.0, request_id: str = "r1") -> Question:
    return Question(asker="operator", request_id=request_id, due_s=due_s, waiting=set(waiting), outcome=outcome)


def ids(ended: Iterable[Question]) -> list[str]:
    return [each.request_id for each in ended]


def test_a_question_ends_with_the_last_answer_and_has_them_all() -> None:
    ledger, asked = QuestionLedger(), question("cell/0", "cell/1")
    assert ledger.ask("q1", asked) == []
    assert ledger.answered("q1", "cell/1", {"sessions": 1}) == []
    assert ledger.is_open("q1")
    assert ledger.answered("q1", "cell/0", {"sessions": 2}) == [asked]
    assert not ledger.is_open("q1")
    assert asked.answers == {"cell/0": {"sessions": 2}, "cell/1": {"sessions": 1}}
    assert ledger.answered("q1", "cell/0", {"sessions": 3}) == []


def test_a_question_to_nobody_ends_at_once() -> None:
    asked = question(outcome=DONE)
    assert QuestionLedger().ask("q1", asked) == [asked]


def test_who_is_gone_is_waited_for_no_more_by_any_question() -> None:
    ledger = QuestionLedger()
    ledger.ask("q1", question("cell/0", outcome=ENDED, request_id="r1"))
    ledger.ask("q2", question("cell/0", "cell/1", request_id="r2"))
    ledger.ask("q3", question("cell/1", request_id="r3"))
    assert ids(ledger.gone("cell/0")) == ["r1"]
    assert ids(ledger.answered("q2", "cell/1", {})) == ["r2"]
    assert ids(ledger.gone("cell/1")) == ["r3"]


def test_a_question_after_the_end_of_one_waits_for_its_successor() -> None:
    ledger = QuestionLedger()
    assert ledger.gone("cell/0") == []
    assert ledger.ask("q1", question("cell/0")) == []
    assert ids(ledger.answered("q1", "cell/0", {})) == ["r1"]


def test_what_became_of_a_command_is_its_outcome_whoever_is_waited_for() -> None:
    ledger = QuestionLedger()
    ledger.ask("q1", question("the restart", outcome=ENDED))
    (ended,) = ledger.settled("q1", DONE)
    assert ended.outcome == DONE
    assert ledger.settled("q1", ENDED) == []


def test_a_question_ends_when_its_time_is_over_with_what_has_been_said() -> None:
    ledger, asked = QuestionLedger(), question("cell/0", "cell/1", due_s=5.0)
    ledger.ask("q1", asked)
    ledger.ask("q2", question("cell/0", due_s=6.0, request_id="r2"))
    ledger.answered("q1", "cell/1", {"sessions": 1})
    assert ledger.expire(4.9) == []
    assert ledger.expire(5.0) == [asked]
    assert asked.answers == {"cell/1": {"sessions": 1}}
    assert ids(ledger.expire(9.0)) == ["r2"]


def test_an_answer_to_a_question_that_nobody_asked_ends_none() -> None:
    ledger = QuestionLedger()
    ledger.ask("q1", question("cell/0"))
    assert [ledger.answered("q7", "cell/0", {}), ledger.settled("q7", DONE), ledger.answered("q1", "cell/1", {})] == [[], [], []]


class QuestionsEnd(RuleBasedStateMachine):
    """Any order of answers, ends and time: each question ends exactly once, and those that are open still wait for somebody."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = QuestionLedger()
        self.now_s = 0.0
        self.count = 0
        self.open: dict[str, tuple[set[str], float]] = {}  # {question id: (who is waited for, until when)}

    def check(self, ended: list[Question]) -> None:
        expected = [each for each, (waiting, due_s) in self.open.items() if not waiting or due_s <= self.now_s]
        assert ids(ended) == expected
        for each in expected:
            del self.open[each]

    @rule(cells=st.sets(st.sampled_from(CELLS)), patience_s=st.integers(1, 5))
    def ask(self, cells: set[str], patience_s: int) -> None:
        self.count += 1
        each, due_s = f"q{self.count}", self.now_s + patience_s
        self.open[each] = (set(cells), due_s)
        self.check(self.ledger.ask(each, question(*cells, due_s=due_s, request_id=each)))

    @rule(number=st.integers(1, 12), cell=st.sampled_from(CELLS))
    def answered(self, number: int, cell: str) -> None:
        self.open.get(f"q{number}", (set(), 0))[0].discard(cell)
        self.check(self.ledger.answered(f"q{number}", cell, {}))

    @rule(number=st.integers(1, 12))
    def settled(self, number: int) -> None:
        self.open.get(f"q{number}", (set(), 0))[0].clear()
        self.check(self.ledger.settled(f"q{number}", DONE))

    @rule(cell=st.sampled_from(CELLS))
    def gone(self, cell: str) -> None:
        for waiting, _ in self.open.values():
            waiting.discard(cell)
        self.check(self.ledger.gone(cell))

    @rule(after_s=st.integers(0, 3))
    def expire(self, after_s: int) -> None:
        self.now_s += after_s
        self.check(self.ledger.expire(self.now_s))

    @invariant()
    def is_consistent(self) -> None:
        self.ledger.assert_consistent()


TestQuestionsEnd = QuestionsEnd.TestCase
