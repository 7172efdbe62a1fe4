"""What every actor is told by whoever supervises it, and says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import attrs
from thespian.actors import ActorAddress


class Runtime(Protocol):
    """What an in-process actor may ask of the event loop that carries it."""

    def send(self, sender: ActorAddress, target: ActorAddress, message: object) -> None:
        """Send from a handler: the message is delivered once that has returned, and those before it."""

    def post(self, target: ActorAddress, message: object) -> None:
        """Send from loop code (a task, a callback), and let the actors run."""

    def post_all(self, mail: Iterable[tuple[ActorAddress, object]]) -> None:
        """Post several messages, then let the actors run once."""

    def post_later(self, delay_s: float, target: ActorAddress, message: object) -> None:
        """The same after a delay: the in-process base has nobody to pump Thespian's own timers."""

    def forget_dead(self) -> None:
        """Let go of what the base keeps of actors that have ended."""


@attrs.frozen(kw_only=True)
class Wiring:
    """Supervisor -> child, always the first message: who you are and whom you may talk to.

    name:        full name, as `mcp-gateway status` prints it ("cell/0/router").
    incarnation: 1 for the first start, one more for each restart; tells a late reply from a fresh one.
    addresses:   {short name: address} of the siblings started earlier, plus "supervisor".
    runtime:     the loop port of an in-process system; None on a multiprocess base.
    arguments:   what the child spec carries for this actor.
    """

    name: str
    incarnation: int
    addresses: dict[str, ActorAddress] = attrs.field(repr=False)
    runtime: Runtime | None = attrs.field(default=None, repr=False)
    arguments: Any = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class ChildReady:
    """Child -> supervisor: `on_wired` has returned, mail is welcome."""

    name: str
    incarnation: int


@attrs.frozen(kw_only=True)
class ActorCrashed:
    """Child -> supervisor: an unhandled error ends me; ChildActorExited follows, which carries no reason."""

    name: str
    incarnation: int
    error_text: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ActorFinished:
    """Child -> supervisor: my work is done, I end of my own accord; a transient child is not started again."""

    name: str
    incarnation: int


@attrs.frozen(kw_only=True)
class StopRequested:
    """Supervisor -> child: end in good order. A supervisor ends its own children first."""


@attrs.frozen(kw_only=True)
class LogLevelChanged:
    """NodeSupervisor -> each of its processes: write lines of this level ("debug") and above from now on."""

    level: str


@attrs.frozen(kw_only=True)
class CrashRequested:
    """Fault injection -> any actor: raise an unhandled error now."""

    reason: str = "fault injection"
