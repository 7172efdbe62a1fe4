"""Decides what counts against a replica, and whether it may be asked again: a circuit breaker per route and replica. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple


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


class CircuitBreaker:
    """Opens after `failure_threshold` failures in a row, and after `reset_timeout_s` lets one trial at a time through.

    What one client alone has seen does not open it: that may be that client's own doing, and the others would pay for it. It
    takes a second client, or the gateway's own probe, which the caller makes when it hears of a failure. How long requests take
    counts only where probes fail as well: a tool may take its time. Where a probe has failed, a good one closes the circuit at
    once; a server that answers its probes and nothing else waits for its trial.
    Known gap: a client that fails a trial is believed alone.

    Ask `allows` once per request; where it says True for a circuit that is not closed, that request is the trial and its
    outcome decides. A trial that ends without one is abandoned, and one that never reports is given up after reset_timeout_s.
    While it is open, late outcomes of requests from before do not move it. In a half-open circuit they count as the trial's:
    known gap, a token per request would close it; it costs one trial at worst.
    It reads no clock: now_s is the caller's monotonic clock.
    Source: Nygard, "Release It!", circuit breaker; Envoy manual, outlier detection, consecutive_5xx and
    successful_active_health_check_uneject_host; the second witness is ours.
    """

    __slots__ = (
        "_clients",
        "_failure_count",
        "_failure_threshold",
        "_has_failed_probe",
        "_opened_at_s",
        "_reset_timeout_s",
        "_state",
        "_timeout_count",
        "_trial_call_id",
        "_trial_started_at_s",
    )

    def __init__(self, failure_threshold: int, reset_timeout_s: float) -> None:
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
        self._opened_at_s = 0.0
        self._trial_call_id = 0
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

    def allows(self, now_s: float, call_id: int = 0) -> bool:
        """Tell whether a request may pass now; a True of a circuit that is not closed takes the trial, for call_id to abandon.

        The caller sees OPEN -> HALF_OPEN by comparing `state` before and after.
        """
        if self._state is CircuitState.CLOSED:
            return True
        if self._state is CircuitState.OPEN:
            if now_s < self._opened_at_s + self._reset_timeout_s:
                return False
            self._move(CircuitEvent.RESET_TIME_OVER)
        elif self._trial_started_at_s is not None and now_s < self._trial_started_at_s + self._reset_timeout_s:
            return False
        self._trial_call_id, self._trial_started_at_s = call_id, now_s
        return True

    def would_allow(self, now_s: float) -> bool:
        """The same answer as `allows` without taking the trial: for choosing among replicas."""
        return self.retry_after_s(now_s) == 0.0

    def record_success(self, now_s: float) -> Transition | None:
        """A request succeeded. Closes a half-open circuit; returns the change, if any."""
        if self._state is CircuitState.OPEN:
            return None
        self._forget_failures()
        return self._move(CircuitEvent.TRIAL_SUCCEEDED) if self._state is CircuitState.HALF_OPEN else None

    def record_failure(self, now_s: float, client: str, *, may_open: bool = True) -> Transition | None:
        """A request failed. Opens the circuit at the threshold, or again when it was the trial; returns the change, if any.

        client:   whose request it was.
        may_open: whether one more replica of the route may be out (`replica_choice.may_open`).
        """
        if self._state is CircuitState.OPEN:
            return None
        self._failure_count += 1
        if len(self._clients) < _ENOUGH_CLIENTS:
            self._clients.add(client)
        if self._state is CircuitState.HALF_OPEN:
            self._trial_started_at_s = None
            self._opened_at_s = now_s
            return self._move(CircuitEvent.TRIAL_FAILED)
        return self._open(now_s) if may_open else None

    def record_timeout(self, now_s: float, *, may_open: bool = True) -> Transition | None:
        """A request had no answer in time: a failure where probes fail as well, and else nothing."""
        if self._state is not CircuitState.CLOSED:
            return None
        self._timeout_count += 1
        return self._open(now_s) if may_open else None

    def record_probe(self, now_s: float, *, is_well: bool, may_open: bool = True) -> Transition | None:
        """The gateway has asked the server itself; returns the change, if any. Probes are no failures that are counted."""
        if self._state is CircuitState.CLOSED:
            self._has_failed_probe = not is_well
            if is_well:
                self._timeout_count = 0
            return self._open(now_s) if may_open else None
        if not is_well:
            self._has_failed_probe = True
        elif self._has_failed_probe:
            self._forget_failures()
            return self._move(CircuitEvent.PROBE_SUCCEEDED)
        return None

    def abandon_trial(self, call_id: int = 0) -> None:
        """The trial ended without saying anything about the replica (cancelled, no free connection): the next one may try.

        Nothing happens where another call has taken the trial since.
        """
        if call_id == self._trial_call_id:
            self._trial_started_at_s = None

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until `allows` may say True; 0.0 when it would now. While a trial runs, the time until it is given up."""
        if self._state is CircuitState.CLOSED:
            return 0.0
        since_s = self._opened_at_s if self._state is CircuitState.OPEN else self._trial_started_at_s
        return 0.0 if since_s is None else max(0.0, since_s + self._reset_timeout_s - now_s)

    def _open(self, now_s: float) -> Transition | None:
        """Where there is reason enough."""
        if not self.has_evidence:
            return None
        self._opened_at_s = now_s
        return self._move(CircuitEvent.THRESHOLD_REACHED)

    def _forget_failures(self) -> None:
        self._failure_count = 0
        self._timeout_count = 0
        self._clients.clear()
        self._has_failed_probe = False
        self._trial_started_at_s = None

    def _move(self, event: CircuitEvent) -> Transition:
        old, self._state = self._state, _TRANSITIONS[self._state, event]
        return Transition(old, self._state)
