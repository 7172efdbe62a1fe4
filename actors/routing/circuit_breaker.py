"""Decides what counts against a replica, and whether it may be asked again: a circuit breaker per route and replica. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from .outlier_window import OutlierRules, OutlierWindow


class CircuitState(enum.Enum):
    """`gauge` is the number that the metric circuit_state shows."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"

    @property
    def gauge(self) -> int:
        return _GAUGES[self]


class CircuitEvent(enum.Enum):
    """What moves a circuit. Failures below the threshold, or of one client alone, move nothing and are counted only."""

    THRESHOLD_REACHED = "threshold_reached"
    RESET_TIME_OVER = "reset_time_over"
    TRIAL_SUCCEEDED = "trial_succeeded"
    TRIAL_FAILED = "trial_failed"
    PROBE_SUCCEEDED = "probe_succeeded"


class Transition(NamedTuple):
    """A circuit changed; `opened`, `half_open` and `closed` events are published from this."""

    old: CircuitState
    new: CircuitState


_GAUGES = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
_TRANSITIONS = {
    (CircuitState.CLOSED, CircuitEvent.THRESHOLD_REACHED): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitEvent.RESET_TIME_OVER): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.TRIAL_SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, CircuitEvent.TRIAL_FAILED): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitEvent.PROBE_SUCCEEDED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, CircuitEvent.PROBE_SUCCEEDED): CircuitState.CLOSED,
}
_ENOUGH_CLIENTS = 2
_GOOD_PROBES_THAT_CLOSE = 2
_FIRST_BACKOFF_S = 1.0
_MOST_DOUBLINGS = 16
_LAST_RESORT_BACKOFF_S = 0.5


def _whole() -> float:
    return 1.0


class CircuitBreaker:
    """Opens after `failure_threshold` failures in a row, and within `reset_timeout_s` lets one trial at a time through.

    rates:  opens as well, where another replica can take its calls, when too large a share of them fails or is slow.
    jitter: a factor above 0.0 and up to 1.0 for each backoff, so that circuits that opened together are not tried together.

    What one client alone has seen does not open it: that may be that client's own doing, and the others would pay for it. It
    takes a second client, or the gateway's own probe, which the caller makes when it hears of a failure. How long requests take
    counts only where probes fail as well: a tool may take its time.

    Probes tell when it is over. Where one has failed, a good one closes the circuit at once. Where none has, the server may have
    been away for a moment, or answer its probes and nothing else: the first good one makes the trial due, the second closes the
    circuit. If it opens again within reset_timeout_s, probes are not believed that far: the trial is due after a backoff that
    doubles from one second to reset_timeout_s, and it alone closes the circuit. As the last resort of a call, which would be
    refused otherwise, it is tried twice a second all the same: that costs nobody anything.
    A trial that fails keeps only its own client waiting, until a second client's has failed as well: whoever else comes may try
    as soon as a probe is good.

    Ask `allows` once per request; where it says True for a circuit that is not closed, that request is the trial and its
    outcome decides. A trial that ends without one is abandoned, and one that never reports is given up after reset_timeout_s.
    While it is open, late outcomes of requests from before do not move it. In a half-open circuit late failures of the trial's
    own client and every late success count as the trial's: known gap, a token per request would close it; it costs one trial at
    worst.
    It reads no clock: now_s is the caller's monotonic clock.
    Source: Nygard, "Release It!", circuit breaker; Envoy manual, outlier detection, consecutive_5xx,
    successful_active_health_check_uneject_host, and an ejection time that grows with each ejection that follows soon; Brooker,
    "Exponential Backoff And Jitter"; the second witness is ours.
    """

    __slots__ = (
        "_backoff_s",
        "_clients",
        "_closed_at_s",
        "_failure_count",
        "_failure_threshold",
        "_good_probe_count",
        "_has_failed_probe",
        "_jitter",
        "_opened_at_s",
        "_reopened_count",
        "_reset_timeout_s",
        "_state",
        "_timeout_count",
        "_trial_call_id",
        "_trial_client",
        "_trial_losers",
        "_trial_started_at_s",
        "_window",
    )

    def __init__(
        self,
        failure_threshold: int,
        reset_timeout_s: float,
        rates: OutlierRules | None = None,
        jitter: Callable[[], float] = _whole,
    ) -> None:
        if failure_threshold < 1 or not reset_timeout_s > 0:
            raise ValueError(
                f"failure_threshold is {failure_threshold}, reset_timeout_s is {reset_timeout_s}: both must be positive"
            )
        self._failure_threshold = failure_threshold
        self._reset_timeout_s = reset_timeout_s
        self._state = CircuitState.CLOSED
        self._failure_count = 0
        self._timeout_count = 0
        self._clients: set[str] = set()  # who has seen the failures that are counted; no more of them than matter
        self._has_failed_probe = False
        self._window = OutlierWindow(rates or OutlierRules())
        self._jitter = jitter
        self._opened_at_s = 0.0
        self._closed_at_s: float | None = None
        self._reopened_count = 0  # how often it has opened again, each time soon after it was tried or closed
        self._good_probe_count = 0  # since it opened
        self._backoff_s = 0.0
        self._trial_call_id = 0
        self._trial_client = ""
        self._trial_losers: set[str] = set()  # whose trials have failed since it opened; no more of them than matter
        self._trial_started_at_s: float | None = None

    @property
    def state(self) -> CircuitState:
        """OPEN until a trial is taken: time alone does not move a circuit, so each change has a call that reports it."""
        return self._state

    @property
    def has_evidence(self) -> bool:
        """Whether there are failures enough, and more than one witness of them: where it is closed, it has no room to open."""
        if self._has_failed_probe:
            return self._failure_count + self._timeout_count >= self._failure_threshold
        return len(self._clients) >= _ENOUGH_CLIENTS and self._failure_count >= self._failure_threshold

    @property
    def gauge(self) -> int:
        return self._state.gauge

    def allows(self, now_s: float, call_id: int = 0, *, client: str = "", is_last_resort: bool = False) -> bool:
        """Tell whether a request may pass now; a True of a circuit that is not closed takes the trial, for call_id to abandon.

        client:         whose request it is; "" for somebody of whom nothing is known.
        is_last_resort: whether no other replica can take it.
        The caller sees OPEN -> HALF_OPEN by comparing `state` before and after.
        """
        if self._state is CircuitState.CLOSED:
            return True
        if self._state is CircuitState.OPEN:
            if now_s < self._due_s(client, is_last_resort=is_last_resort):
                return False
            self._move(CircuitEvent.RESET_TIME_OVER, now_s)
        elif self._trial_started_at_s is not None and now_s < self._trial_started_at_s + self._reset_timeout_s:
            return False
        self._trial_call_id, self._trial_client, self._trial_started_at_s = call_id, client, now_s
        return True

    def would_allow(self, now_s: float) -> bool:
        """The same answer as `allows` without taking the trial: for choosing among replicas."""
        return self.retry_after_s(now_s) == 0.0

    def record_success(self, now_s: float) -> Transition | None:
        """A request succeeded. Closes a half-open circuit; returns the change, if any."""
        if self._state is CircuitState.OPEN:
            return None
        self._forget_failures()
        return self._move(CircuitEvent.TRIAL_SUCCEEDED, now_s) if self._state is CircuitState.HALF_OPEN else None

    def record_failure(
        self, now_s: float, client: str, success_count: int = 0, *, may_open: bool = True, has_other: bool = False
    ) -> Transition | None:
        """A request failed. Opens the circuit at the threshold, or again when it was the trial; returns the change, if any.

        client:        whose request it was.
        success_count: requests that succeeded since the last report.
        may_open:      whether one more replica of the route may be out (`replica_choice.may_open`).
        has_other:     whether another one can take its calls: where none can, some that succeed are better than none.
        """
        is_trial = self._state is CircuitState.HALF_OPEN
        if self._state is CircuitState.OPEN or (is_trial and self._trial_client not in ("", client)):
            return None
        self._failure_count += 1
        self._window.note_failure(now_s, client, success_count)
        if len(self._clients) < _ENOUGH_CLIENTS:
            self._clients.add(client)
        if is_trial:
            self._trial_started_at_s = None
            self._reopened_count += 1
            if len(self._trial_losers) < _ENOUGH_CLIENTS:
                self._trial_losers.add(client)
            return self._open(now_s, CircuitEvent.TRIAL_FAILED)
        if not may_open:
            return None
        return self._open_on_evidence(now_s) or (self._open_on_rates(now_s) if has_other else None)

    def record_slow_call(
        self, now_s: float, client: str, success_count: int = 0, *, may_open: bool = True, has_other: bool = False
    ) -> Transition | None:
        """A request succeeded and took too long; as `record_failure` takes it, but that no trial fails by it."""
        if self._state is not CircuitState.CLOSED:
            return None
        self._window.note_slow_call(now_s, client, success_count)
        return self._open_on_rates(now_s) if may_open and has_other else None

    def record_timeout(self, now_s: float, *, may_open: bool = True) -> Transition | None:
        """A request had no answer in time: a failure where probes fail as well, and else nothing."""
        if self._state is not CircuitState.CLOSED:
            return None
        self._timeout_count += 1
        return self._open_on_evidence(now_s) if may_open else None

    def record_probe(self, now_s: float, *, is_well: bool, may_open: bool = True) -> Transition | None:
        """The gateway has asked the server itself; returns the change, if any. Probes are no failures that are counted."""
        if self._state is CircuitState.CLOSED:
            self._has_failed_probe = not is_well
            if is_well:
                self._timeout_count = 0
            return self._open_on_evidence(now_s) if may_open else None
        if not is_well:
            self._has_failed_probe = True
            return None
        self._good_probe_count += 1
        is_believed = not self._reopened_count and self._good_probe_count >= _GOOD_PROBES_THAT_CLOSE
        if not self._has_failed_probe and not is_believed:
            return None
        self._forget_failures()
        return self._move(CircuitEvent.PROBE_SUCCEEDED, now_s)

    def abandon_trial(self, call_id: int = 0) -> None:
        """The trial ended without saying anything about the replica (cancelled, no free connection): the next one may try.

        Nothing happens where another call has taken the trial since.
        """
        if call_id == self._trial_call_id:
            self._trial_started_at_s = None

    def retry_after_s(self, now_s: float, *, client: str = "", is_last_resort: bool = False) -> float:
        """Seconds until `allows` may say True; 0.0 when it would now. While a trial runs, the time until it is given up."""
        if self._state is CircuitState.CLOSED:
            return 0.0
        if self._state is CircuitState.OPEN:
            return max(0.0, self._due_s(client, is_last_resort=is_last_resort) - now_s)
        since_s = self._trial_started_at_s
        return 0.0 if since_s is None else max(0.0, since_s + self._reset_timeout_s - now_s)

    def _due_s(self, client: str, *, is_last_resort: bool) -> float:
        """When the trial of an open circuit may begin."""
        if not self._good_probe_count:
            return self._opened_at_s + self._reset_timeout_s
        if client and 0 < len(self._trial_losers) < _ENOUGH_CLIENTS and client not in self._trial_losers:
            return self._opened_at_s
        return self._opened_at_s + (min(self._backoff_s, _LAST_RESORT_BACKOFF_S) if is_last_resort else self._backoff_s)

    def _open_on_evidence(self, now_s: float) -> Transition | None:
        return self._open_again(now_s) if self.has_evidence else None

    def _open_on_rates(self, now_s: float) -> Transition | None:
        return self._open_again(now_s) if self._window.is_exceeded(now_s) else None

    def _open_again(self, now_s: float) -> Transition:
        was_just_closed = self._closed_at_s is not None and now_s < self._closed_at_s + self._reset_timeout_s
        self._reopened_count = self._reopened_count + 1 if was_just_closed else 0
        return self._open(now_s, CircuitEvent.THRESHOLD_REACHED)

    def _open(self, now_s: float, event: CircuitEvent) -> Transition:
        self._opened_at_s = now_s
        self._good_probe_count = 0
        self._backoff_s = 0.0
        if self._reopened_count:
            doubled_s = _FIRST_BACKOFF_S * 2.0 ** min(self._reopened_count - 1, _MOST_DOUBLINGS)
            self._backoff_s = min(doubled_s, self._reset_timeout_s) * self._jitter()
        return self._move(event, now_s)

    def _forget_failures(self) -> None:
        self._failure_count = 0
        self._timeout_count = 0
        self._clients.clear()
        self._trial_losers.clear()
        self._has_failed_probe = False
        self._trial_started_at_s = None

    def _move(self, event: CircuitEvent, now_s: float) -> Transition:
        old, self._state = self._state, _TRANSITIONS[self._state, event]
        if self._state is CircuitState.CLOSED:
            self._closed_at_s = now_s
            self._window.forget(now_s)
        return Transition(old, self._state)
