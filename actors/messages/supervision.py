"""What supervisors are asked, and what they answer: the tree below them, and restarts of children."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class SnapshotRequested:
    """Anyone -> supervisor: what runs below you?"""

    request_id: str


@attrs.frozen(kw_only=True)
class SupervisionSnapshot:
    """One row of the supervision tree and the rows below it.

    name:           full name.
    pid:            None while the child is down.
    uptime_s:       since this incarnation was started; 0.0 while the child is down.
    restarts:       how often it has been started again, for whatever reason.
    last_exit_text: why the incarnation before ended; None at first.
    is_ready:       it has reported ready and has not been asked to stop.
    children:       in start order.
    """

    name: str
    pid: int | None
    incarnation: int
    uptime_s: float
    restarts: int
    is_ready: bool = True
    last_exit_text: str | None = None
    children: tuple[SupervisionSnapshot, ...] = ()


@attrs.frozen(kw_only=True)
class SnapshotTaken:
    """The answer to SnapshotRequested: the supervisor's own row, its children below."""

    request_id: str
    snapshot: SupervisionSnapshot = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class RestartChildRequested:
    """Anyone -> supervisor: stop the child and start it again, under rest_for_one with those after it.

    name: short name. The restart is not counted as a crash.
    """

    name: str
    request_id: str


@attrs.frozen(kw_only=True)
class ChildRestarted:
    """The answer to RestartChildRequested: all that were restarted are ready."""

    request_id: str
    started: tuple[str, ...]


@attrs.frozen(kw_only=True)
class ChildRestartRefused:
    """The answer to RestartChildRequested when there is no such child."""

    request_id: str
    error_text: str
