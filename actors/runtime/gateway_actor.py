"""The base of every actor: wiring, crash on error, timers with generations, stray mail, log context."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any, ClassVar

import attrs
from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited, PoisonMessage, WakeupMessage

from mcp_gateway.actors.messages.lifecycle import (
    ActorCrashed,
    ActorFinished,
    ChildReady,
    CrashRequested,
    LogLevelChanged,
    Runtime,
    StopRequested,
    Wiring,
)

from .lanes import Batch

_logger = logging.getLogger(__name__)


class RequestedCrash(Exception):
    """The unhandled error that `CrashRequested` asks for."""


@attrs.frozen
class TimerFired:
    """An actor to itself: the timer `name` of this generation has run out."""

    name: str
    generation: int
    payload: Any = attrs.field(default=None, repr=False)


class GatewayActor(Actor):  # type: ignore[misc]  # Thespian is untyped
    """An actor that crashes as in OTP: an unhandled error is logged, answered for, and ends the actor.

    Thespian alone would run the failing handler again and keep the damaged actor alive.

    Receives  Wiring, StopRequested (supervisor), LogLevelChanged, CrashRequested (operator), Batch (any actor with lanes),
              its own timers
    Sends     ChildReady, ActorCrashed, ActorFinished (supervisor)
    On crash  `on_crash` gets the message at hand and all mail that follows, so that nobody waits for an answer in vain
    """

    IS_READY_WHEN_WIRED: ClassVar[bool] = True  # False: the actor calls `announce_ready` itself, later

    _handlers: ClassVar[dict[type, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._handlers = {}

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.incarnation = 0
        self.addresses: dict[str, ActorAddress] = {}
        self.runtime: Runtime | None = None
        self.arguments: Any = None
        self.stray_mail_count = 0
        self._wired_by: ActorAddress | None = None
        self._is_crashed = False
        self._has_left = False
        self._timer_generations: dict[str, int] = {}

    # ---- what an actor overrides

    def on_wired(self) -> None:
        """Start work: addresses, runtime and arguments are set."""

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        """Answer for a message that will not be handled; state may be damaged, so only the message may be trusted."""

    def on_exit(self) -> None:
        """Let go of what this actor owns; an orderly stop as well as the end of a crash."""

    def on_child_exited(self, child: ActorAddress) -> None:
        """React to the end of an actor that this one created."""

    # ---- what an actor uses

    @staticmethod
    def monotonic_s() -> float:
        """Seconds on the clock that deadlines and timers use."""
        return time.monotonic()

    def send(self, target: ActorAddress, message: object) -> None:
        """Send to another actor; in-process without Thespian's checks and lock, for a call takes half a dozen messages."""
        if self.runtime is None:
            super().send(target, message)
        else:
            self.runtime.send(self.myAddress, target, message)

    def start_timer(self, name: str, delay_s: float, payload: Any = None) -> None:
        """Call `receiveTimer_<name>(payload)` once after delay_s; a timer of that name that still runs is forgotten."""
        generation = self._timer_generations.get(name, 0) + 1
        self._timer_generations[name] = generation
        fired = TimerFired(name, generation, payload)
        if self.runtime is not None:
            self.runtime.post_later(delay_s, self.myAddress, fired)
        else:
            self.wakeupAfter(timedelta(seconds=delay_s), fired)

    def announce_ready(self) -> None:
        """Tell whoever has wired this actor that mail is welcome; for actors whose start goes on after `on_wired`."""
        # InProcessSystem wires its root in the root's own name: nobody waits for that answer.
        if self._wired_by is not None and self._wired_by != self.myAddress:
            self.send(self._wired_by, ChildReady(name=self.name, incarnation=self.incarnation))

    def finish(self) -> None:
        """End this actor because its work is done."""
        if (supervisor := self.addresses.get("supervisor")) is not None:
            self.send(supervisor, ActorFinished(name=self.name, incarnation=self.incarnation))
        self.send(self.myAddress, ActorExitRequest())

    def log(self, level: int, text: str, *, error: BaseException | None = None, **fields: object) -> None:
        """Write one structured line; `fields` such as request_id appear beside the actor's name."""
        if _logger.isEnabledFor(level):
            _logger.log(level, text, exc_info=error, extra={"actor": self.name, "fields": fields})

    # ---- engine

    def receiveMessage(self, message: Any, sender: ActorAddress) -> Any:
        if isinstance(message, Batch):
            for item in message.items:
                GatewayActor.receiveMessage(self, item, sender)
            return None
        if self._is_crashed:
            if not isinstance(message, ActorExitRequest):
                self._answer_for(message, sender)
                return None
            return self._leave()
        try:
            return getattr(self, self._handlers.get(type(message)) or self._handler_name(type(message)))(message, sender)
        except Exception as error:
            self._crash(error, message, sender)
            return None

    def _handler_name(self, kind: type) -> str:
        """Of the handler for messages of this kind, or of the nearest of its bases; found out once."""
        name = next(
            (name for name in (f"receiveMsg_{ancestor.__name__}" for ancestor in kind.__mro__[:-1]) if hasattr(self, name)),
            "_receive_stray_mail",
        )
        type(self)._handlers[kind] = name
        return name

    def _receive_stray_mail(self, message: object, sender: ActorAddress) -> None:
        self.stray_mail_count += 1
        self.log(logging.WARNING, f"stray mail: {type(message).__name__}", stray_mail_count=self.stray_mail_count)

    def receiveMsg_Wiring(self, message: Wiring, sender: ActorAddress) -> None:
        self.name, self.incarnation = message.name, message.incarnation
        self.addresses, self.runtime, self.arguments = message.addresses, message.runtime, message.arguments
        self._wired_by = sender
        self.on_wired()
        if self.IS_READY_WHEN_WIRED:
            self.announce_ready()

    def receiveMsg_WakeupMessage(self, message: WakeupMessage, sender: ActorAddress) -> None:
        if isinstance(message.payload, TimerFired):
            self.receiveMsg_TimerFired(message.payload, sender)

    def receiveMsg_TimerFired(self, message: TimerFired, sender: ActorAddress) -> None:
        if self._timer_generations.get(message.name) == message.generation:
            getattr(self, f"receiveTimer_{message.name}")(message.payload)

    def receiveMsg_StopRequested(self, message: StopRequested, sender: ActorAddress) -> None:
        self.send(self.myAddress, ActorExitRequest())

    def receiveMsg_LogLevelChanged(self, message: LogLevelChanged, sender: ActorAddress) -> None:
        logging.root.setLevel(message.level.upper())

    def receiveMsg_CrashRequested(self, message: CrashRequested, sender: ActorAddress) -> None:
        raise RequestedCrash(message.reason)

    def receiveMsg_ChildActorExited(self, message: ChildActorExited, sender: ActorAddress) -> None:
        self.on_child_exited(message.childAddress)

    def receiveMsg_PoisonMessage(self, message: PoisonMessage, sender: ActorAddress) -> None:
        self.log(logging.ERROR, f"a peer could not handle {type(message.poisonMessage).__name__}: {message.details}")

    def receiveMsg_ActorExitRequest(self, message: ActorExitRequest, sender: ActorAddress) -> None:
        self._leave()

    def _crash(self, error: Exception, message: object, sender: ActorAddress) -> None:
        self._is_crashed = True
        self.log(logging.ERROR, f"crashed on {type(message).__name__}: {error!r}", error=error, incarnation=self.incarnation)
        self._answer_for(message, sender)
        if isinstance(message, ActorExitRequest):
            return  # Thespian goes on with the exit
        if (supervisor := self.addresses.get("supervisor")) is not None:
            self.send(
                supervisor,
                ActorCrashed(name=self.name, incarnation=self.incarnation, error_text=f"{type(error).__name__}: {error}"),
            )
        self.send(self.myAddress, ActorExitRequest())

    def _answer_for(self, message: object, sender: ActorAddress) -> None:
        try:
            self.on_crash(message, sender)
        except Exception as error:
            self.log(logging.ERROR, f"on_crash failed too, on {type(message).__name__}: {error!r}", error=error)

    def _leave(self) -> None:
        if self._has_left:
            return  # Thespian hands on every exit request, also those that come while the actor is leaving
        self._has_left = True
        try:
            self.on_exit()
        except Exception as error:
            self.log(logging.ERROR, f"on_exit failed: {error!r}", error=error)
