"""When something counts as down or up again, and what that means for the whole. Pure."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Mapping

import attrs

HISTORY_LENGTH = 100


class Change(enum.Enum):
    """A verdict has turned."""

    DOWN = "down"
    UP = "up"


class RiseFall:
    """Turns single probes into a verdict: down after `fall` failures in a row, up again after `rise` successes in a row.

    Source: HAProxy manual, server options `rise` (default 2) and `fall` (default 3).
    """

    __slots__ = ("_contrary_count", "_fall", "_rise", "is_up")

    def __init__(self, rise: int = 2, fall: int = 3, *, is_up: bool = True) -> None:
        if rise < 1 or fall < 1:
            raise ValueError(f"rise is {rise}, fall is {fall}: both must be at least 1")
        self._rise = rise
        self._fall = fall
        self.is_up = is_up
        # Results in a row that speak against the verdict.
        self._contrary_count = 0

    def observe(self, ok: bool, *, is_certain: bool = False) -> Change | None:
        """Take the result of one probe; returns the change of the verdict, if this one turned it.

        is_certain: it need not be seen again to be believed.
        """
        if ok == self.is_up:
            self._contrary_count = 0
            return None
        self._contrary_count += 1
        if not is_certain and self._contrary_count < (self._fall if self.is_up else self._rise):
            return None
        self._contrary_count = 0
        self.is_up = ok
        return Change.UP if ok else Change.DOWN


class Status(enum.Enum):
    """How a component does; the values are those of `/health`, `gauge` is the number of the metric health_status."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    @property
    def gauge(self) -> int:
        return _GAUGES[self]


_GAUGES = {Status.HEALTHY: 2, Status.DEGRADED: 1, Status.UNHEALTHY: 0}


@attrs.frozen(kw_only=True)
class ComponentHealth:
    """What is known of one component.

    reason:  why it is not healthy, for a person; "" when it is.
    since_s: when it took this status, on the clock of the caller.
    """

    status: Status
    reason: str = ""
    since_s: float


@attrs.frozen(kw_only=True)
class StatusChanged:
    """A component, or the whole under the name "overall", has taken another status."""

    component: str
    old: Status
    new: Status
    reason: str


class SteadyVerdict:
    """Turns findings about one component into its status, so that a single bad one does not count as a failure.

    A finding of unhealthy degrades at once, and is believed after `fall` in a row; after that, `rise` others in a row end it.
    worst: what such findings amount to; a component that can only be strained never becomes worse than degraded.
    """

    __slots__ = ("_rule", "_worst")

    def __init__(self, worst: Status | None = None) -> None:
        self._rule = RiseFall()
        self._worst = worst or Status.UNHEALTHY

    def observe(self, finding: Status) -> Status:
        self._rule.observe(finding is not Status.UNHEALTHY)
        if not self._rule.is_up:
            return self._worst
        if finding is Status.UNHEALTHY:
            return Status.DEGRADED if self._worst is Status.UNHEALTHY else Status.HEALTHY
        return finding


@attrs.frozen(kw_only=True)
class PastChange:
    """One change of the past. at_s: on the clock of the caller."""

    change: StatusChanged
    at_s: float


class HealthRecord:
    """The health of all components and of the whole, with reasons, the time of each change, and the last changes themselves.

    critical: names of the components without which nothing is served.
    """

    def __init__(self, critical: Collection[str]) -> None:
        self._critical = frozenset(critical)
        self._components: dict[str, ComponentHealth] = {}
        self._history: deque[PastChange] = deque(maxlen=HISTORY_LENGTH)

    @property
    def components(self) -> dict[str, ComponentHealth]:
        """{component: its health}, a copy, in the order of first mention."""
        return dict(self._components)

    @property
    def history(self) -> tuple[PastChange, ...]:
        """The last HISTORY_LENGTH changes, oldest first."""
        return tuple(self._history)

    @property
    def overall(self) -> Status:
        return overall({name: health.status for name, health in self._components.items()}, self._critical)

    def set_status(self, component: str, status: Status, reason: str, now_s: float) -> tuple[StatusChanged, ...]:
        """Record what was found; returns the changes to announce, of the component first, then of the whole.

        The first mention of a component is a change from healthy, so a component that comes up well is not announced.
        """
        known = self._components.get(component)
        reason = "" if status is Status.HEALTHY else reason
        if known is not None and known.status is status:
            if known.reason != reason:
                self._components[component] = attrs.evolve(known, reason=reason)
            return ()
        old_overall = self.overall
        self._components[component] = ComponentHealth(status=status, reason=reason, since_s=now_s)
        old = known.status if known is not None else Status.HEALTHY
        return self._changes(component, old, status, old_overall, reason, now_s)

    def forget(self, component: str, now_s: float) -> tuple[StatusChanged, ...]:
        """Drop a component that exists no more, such as a removed replica; returns the change of the whole, if any."""
        old_overall = self.overall
        self._components.pop(component, None)
        return self._changes(component, Status.HEALTHY, Status.HEALTHY, old_overall, f"{component} was removed", now_s)

    def _changes(
        self, component: str, old: Status, new: Status, old_overall: Status, reason: str, now_s: float
    ) -> tuple[StatusChanged, ...]:
        changes = []
        if old is not new:
            changes.append(StatusChanged(component=component, old=old, new=new, reason=reason))
        new_overall = self.overall
        if new_overall is not old_overall:
            because = f"{component}: {reason}" if old is not new and reason else reason
            changes.append(StatusChanged(component="overall", old=old_overall, new=new_overall, reason=because))
        self._history.extend(PastChange(change=change, at_s=now_s) for change in changes)
        return tuple(changes)


def overall(components: Mapping[str, Status], critical: Collection[str]) -> Status:
    """The status of the whole: unhealthy if a critical component is, degraded if anything else is not healthy.

    A critical component that is not in `components` has said nothing yet and is not held against the whole.
    """
    if any(components.get(name) is Status.UNHEALTHY for name in critical):
        return Status.UNHEALTHY
    if any(status is not Status.HEALTHY for status in components.values()):
        return Status.DEGRADED
    return Status.HEALTHY
