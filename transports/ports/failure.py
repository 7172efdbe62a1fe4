"""What became of an exchange that has no answer: one fate each, and what follows from it. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs


class Fate(Enum):
    """Why there is no answer.

    UNREACHABLE:  no connection to the server could be had.
    TURNED_AWAY:  the gateway has not sent it: no room, no replica, no circuit, or it ends.
    SESSION_LOST: the server does not know the session; nothing has run.
    CUT:          the server's connection has ended before the answer: nobody knows whether the request ran.
    CELL_LOST:    the same of the cell that holds the connection: the server may be well.
    TIMED_OUT:    no answer in time.
    STARTING:     the server lives and has not said a word yet, as long as it may take to start; nothing was run.
    BROKEN:       the server was there, and what it gave is no answer.
    REFUSED:      the server was there, is well, and does not do this.
    UNSUPPORTED:  the server does not speak the revision of the exchange.
    UNAUTHORIZED: the server was not shown what it asks for, and another replica would ask for the same; nothing was run.
    ENDED:        the client or the gateway has ended it, whatever the server would have said.
    """

    UNREACHABLE = "unreachable"
    TURNED_AWAY = "turned_away"
    SESSION_LOST = "session_lost"
    CUT = "cut"
    CELL_LOST = "cell_lost"
    TIMED_OUT = "timed_out"
    STARTING = "starting"
    BROKEN = "broken"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    UNAUTHORIZED = "unauthorized"
    ENDED = "ended"

    @property
    def was_sent(self) -> bool:
        """Whether the server may have run the request; where it has not, another try is safe."""
        return self not in _NOT_SENT

    @property
    def is_fault(self) -> bool:
        """Whether it counts against the server, as a broken or overloaded one."""
        return self in _FAULTS

    @property
    def is_cut(self) -> bool:
        """Whether nobody knows if the request ran."""
        return self in _CUTS

    @property
    def is_verdict(self) -> bool:
        """Whether it shows how the server is: by its fault, or because the server was there to refuse.

        How long a call takes does not: that is its tool's own business, and a server that hangs fails its probes.
        """
        return self in _VERDICTS


_NOT_SENT: Final = frozenset({Fate.UNREACHABLE, Fate.TURNED_AWAY, Fate.SESSION_LOST, Fate.STARTING, Fate.UNAUTHORIZED})
_FAULTS: Final = frozenset({Fate.UNREACHABLE, Fate.CUT, Fate.TIMED_OUT, Fate.BROKEN})
_CUTS: Final = frozenset({Fate.CUT, Fate.CELL_LOST})
_VERDICTS: Final = (_FAULTS - {Fate.TIMED_OUT}) | {Fate.REFUSED, Fate.UNSUPPORTED}
_USUAL_REASONS: Final = {
    Fate.SESSION_LOST: "session_not_found",
    Fate.TIMED_OUT: "upstream_timeout",
    Fate.STARTING: "upstream_timeout",
    Fate.UNSUPPORTED: "unsupported_version",
}


@attrs.frozen
class Failure:
    """One exchange without an answer; travels whole, in an exception and in messages.

    text:          for people.
    reason:        a key of `refusals.REFUSALS`: what a client reads. "" makes it what is usual for the fate.
    error:         what the server itself said, as JSON: its JSON-RPC error, or a string of its words; or b"".
    retry_after_s: when another try may be worth it, where that is known.
    is_certain:    another try would find the same until somebody has mended it: one failure shows as much as three.
    consent_url:   where the user consents to what the server asks for, with the reason consent_required; or "".
    """

    fate: Fate
    text: str
    reason: str = attrs.field(default="", kw_only=True)
    error: bytes = attrs.field(default=b"", repr=False, kw_only=True)
    retry_after_s: float | None = attrs.field(default=None, kw_only=True)
    is_certain: bool = attrs.field(default=False, kw_only=True)
    consent_url: str = attrs.field(default="", repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.reason:
            object.__setattr__(self, "reason", _USUAL_REASONS.get(self.fate, "upstream_failed"))
