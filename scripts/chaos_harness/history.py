"""What a run has seen: records, each with its time on the monotonic clock, in the order in which they were made. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs

OK = "ok"
CUT = "cut"
"""Outcome of a call whose connection broke, or was never there. Any other outcome but OK is the reason of a refusal."""
LATE = "late"
WRONG = "wrong"
"""Outcome of a call whose answer was none: another id, no JSON, a bare status."""


@attrs.frozen(kw_only=True)
class Asked:
    """A client has sent a call.

    argument:   what a server counts runs by; "" where running twice does no harm.
    is_bound:   whether the client's session is its connection.
    deadline_s: when it must have ended.
    """

    call_id: int
    client: str
    backend: str
    argument: str
    at_s: float
    deadline_s: float
    is_bound: bool = False

    @property
    def is_safe(self) -> bool:
        return not self.argument


@attrs.frozen(kw_only=True)
class Ended:
    call_id: int
    outcome: str
    at_s: float


@attrs.frozen(kw_only=True)
class Ran:
    """A server has begun to run a call that must not run twice."""

    argument: str
    server: str
    at_s: float


@attrs.frozen(kw_only=True)
class SessionLost:
    """A client has read that its session is not known any more."""

    client: str
    backend: str
    at_s: float


@attrs.frozen(kw_only=True)
class Acknowledged:
    """The gateway has told a publisher that it has this event. Of each publisher they come in its order."""

    number: int
    at_s: float
    publisher: str = ""


@attrs.frozen(kw_only=True)
class Following:
    """A follower has seen its first event: what is acknowledged from here on it must see."""

    follower: str
    at_s: float


@attrs.frozen(kw_only=True)
class Seen:
    follower: str
    event_id: int
    number: int
    at_s: float


@attrs.frozen(kw_only=True)
class Missed:
    """A follower was told that these ids are gone."""

    follower: str
    first_id: int
    last_id: int
    at_s: float


@attrs.frozen(kw_only=True)
class FaultBegan:
    """fault: the name of its kind. target: whom it met."""

    fault_id: int
    fault: str
    target: str
    at_s: float


@attrs.frozen(kw_only=True)
class FaultEnded:
    """Its cause is gone: from here on recovery is the gateway's own."""

    fault_id: int
    at_s: float


@attrs.frozen(kw_only=True)
class Recovered:
    """Every process runs and every backend answers."""

    fault_id: int
    at_s: float


@attrs.frozen(kw_only=True)
class Weighed:
    """What the processes of the gateway hold. memory_bytes: proportional set size of all of them together."""

    processes: int
    memory_bytes: int
    descriptors: int
    files: int
    at_s: float


@attrs.frozen(kw_only=True)
class Stopped:
    """SIGTERM to the gateway. exit_code: None where it had to be killed. left_over: processes that outlived it."""

    took_s: float
    allowed_s: float
    exit_code: int | None
    left_over: int
    at_s: float


Record = (
    Asked | Ended | Ran | SessionLost | Acknowledged | Following | Seen | Missed
    | FaultBegan | FaultEnded | Recovered | Weighed | Stopped
)  # fmt: skip

R = TypeVar("R")


class History:
    """Records, by their kind.

    patience:   how many times longer than on a machine of its own the gateway may take to be well again.
    recovers_s: {fault: seconds} of those that have to be recovered from in another time than their kind says.
    """

    def __init__(self, patience: float = 1.0, recovers_s: Mapping[str, float] | None = None) -> None:
        self.patience = patience
        self.recovers_s = dict(recovers_s or {})
        self._records: list[Record] = []
        self._by_kind: dict[type, list[Any]] = defaultdict(list)  # a long run asks for each kind many times a second

    def add(self, record: Record) -> None:
        self._records.append(record)
        self._by_kind[type(record)].append(record)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def of(self, kind: type[R]) -> list[R]:
        """As many as there are now."""
        return [*self._by_kind[kind]]


def as_json(record: Record) -> dict[str, Any]:
    """One line of `history.jsonl`."""
    return {"record": type(record).__name__, **attrs.asdict(record)}
