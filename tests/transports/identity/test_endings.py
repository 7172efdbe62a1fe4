"""Callbacks come once, in order, at the end of their principals or when these are taken back; or never, when called off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.identity.endings import Endings
from mcp_gateway.transports.ports.principal import Principal


def ending_at(moment_ms: int, subject: str = "alice") -> Principal:
    return Principal(issuer="i", subject=subject, expires_ms=moment_ms)


def called(callbacks: list[object], told: list[int]) -> list[int]:
    told.clear()
    for callback in callbacks:
        callback()  # type: ignore[operator]
    return list(told)


def test_callbacks_are_due_when_their_principals_end() -> None:
    endings, told = Endings(), list[int]()
    for moment_ms in (300, 100, 200):
        endings.add(ending_at(moment_ms), lambda moment_ms=moment_ms: told.append(moment_ms))  # type: ignore[misc]
    assert endings.next_ms == 100
    assert called(list(endings.due(99)), told) == []
    assert called(list(endings.due(200)), told) == [100, 200]
    assert called(list(endings.due(200)), told) == []
    assert endings.next_ms == 300


def test_a_callback_that_is_called_off_does_not_come_and_may_be_called_off_again() -> None:
    endings = Endings()
    call_off = endings.add(ending_at(1), lambda: None)
    call_off()
    call_off()
    assert endings.due(1) == []
    assert endings.next_ms is None


def test_callbacks_of_some_principals_are_taken_out_before_their_end() -> None:
    endings, told = Endings(), list[int]()
    endings.add(ending_at(5, "alice"), lambda: told.append(1))
    endings.add(ending_at(5, "bob"), lambda: told.append(2))
    assert called(list(endings.of(lambda principal: principal.subject == "bob")), told) == [2]
    assert called(list(endings.due(5)), told) == [1]


@given(st.lists(st.tuples(st.sampled_from(["add", "off", "due"]), st.integers(0, 50))))
def test_each_callback_comes_at_most_once_and_never_early(steps: list[tuple[str, int]]) -> None:
    endings, offs, told, ends, now_ms = Endings(), [], [], [], 0
    for step, number in steps:
        if step == "add":
            key = len(ends)
            ends.append(number)
            offs.append(endings.add(ending_at(number), lambda key=key: told.append(key)))  # type: ignore[misc]
        elif step == "off" and offs:
            offs[number % len(offs)]()
        else:
            now_ms += number
            for callback in endings.due(now_ms):
                callback()
        assert len(set(told)) == len(told)
        assert all(ends[key] <= now_ms for key in told)
        assert len(endings) <= len(ends) - len(told)
