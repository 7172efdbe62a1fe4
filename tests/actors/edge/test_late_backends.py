"""How long a merged answer waits for each backend."""

from __future__ import annotations

from mcp_gateway.actors.edge.late_backends import FAN_OUT_S, LATE_FAN_OUT_S, LATE_FOR_S, LateBackends


def test_a_late_backend_is_waited_for_only_briefly_until_it_answers_or_its_time_has_passed() -> None:
    late = LateBackends()
    assert late.patience_s("a", 0.0) == FAN_OUT_S
    late.was_late("a", 0.0)
    late.was_late("b", 0.0)
    assert late.patience_s("a", 1.0) == LATE_FAN_OUT_S < FAN_OUT_S
    late.has_answered("a")
    assert late.patience_s("a", 1.0) == FAN_OUT_S
    assert late.patience_s("b", LATE_FOR_S - 0.1) == LATE_FAN_OUT_S
    assert late.patience_s("b", LATE_FOR_S) == FAN_OUT_S
    assert late.patience_s("c", 1.0) == FAN_OUT_S


def test_backends_that_are_no_more_are_forgotten() -> None:
    late = LateBackends()
    late.was_late("a", 0.0)
    late.keep_only({"b"})
    assert late.patience_s("a", 1.0) == FAN_OUT_S
