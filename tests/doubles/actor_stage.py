"""One actor under test on an in-process system: peers that record what it sends them, and time that the test moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import attrs
from thespian.actors import Actor, ActorAddress

from mcp_gateway.actors.messages.lifecycle import Wiring
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.actors.runtime.in_process_system import InProcessSystem

_Message = TypeVar("_Message")


@attrs.frozen
class _Introduce:
    received: list[object] = attrs.field(repr=False)


@attrs.frozen
class _Say:
    target: ActorAddress = attrs.field(repr=False)
    message: object


class _PeerActor(Actor):
    """Keeps what it is sent; says what the test tells it to, in its own name."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, _Introduce):
            self.received = message.received
        elif isinstance(message, _Say):
            self.send(message.target, message.message)
        else:
            self.received.append(message)


class Peer:
    """Stands in for an actor that the one under test talks to. received: everything, in order."""

    def __init__(self, system: InProcessSystem) -> None:
        self._system = system
        self.received: list[object] = []
        self.address = system.create(_PeerActor, _Introduce(self.received))

    def say(self, target: ActorAddress, message: object) -> None:
        self._system.post(self.address, _Say(target, message))

    def of(self, kind: type[_Message]) -> list[_Message]:
        """What came of this kind."""
        return [message for message in self.received if isinstance(message, kind)]

    def take(self, kind: type[_Message]) -> list[_Message]:
        """The same, and forget everything that came."""
        found = self.of(kind)
        self.received.clear()
        return found

    def only(self, kind: type[_Message]) -> _Message:
        """The one message of this kind since the last look."""
        (found,) = self.take(kind)
        return found


class Stage:
    """Starts actors, wired to peers; needs a running loop. Implements `gateway_actor.Runtime` with timers that `advance` fires.

    Install the clock with `stage.take_over_time(monkeypatch)`: then `now_s` is what every GatewayActor reads.
    """

    def __init__(self) -> None:
        self.system = InProcessSystem()
        self.now_s = 1_000.0
        self.supervisor = Peer(self.system)
        self._timers: list[tuple[float, int, ActorAddress, object]] = []
        self._order = itertools.count()

    def take_over_time(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(GatewayActor, "monotonic_s", staticmethod(lambda: self.now_s))

    def peer(self) -> Peer:
        return Peer(self.system)

    def start(
        self, actor_class: type, peers: dict[str, Peer], arguments: object, *, name: str = "cell/0/actor", incarnation: int = 1
    ) -> ActorAddress:
        addresses = {"supervisor": self.supervisor.address, **{key: peer.address for key, peer in peers.items()}}
        wiring = Wiring(name=name, incarnation=incarnation, addresses=addresses, runtime=self, arguments=arguments)
        return self.system.create(actor_class, wiring)

    def tell(self, target: ActorAddress, *messages: object) -> None:
        for message in messages:
            self.system.post(target, message)

    def ask(self, target: ActorAddress, question: object) -> Any:
        """The one answer to a question."""
        asker = self.peer()
        asker.say(target, question)
        (answer,) = asker.received
        return answer

    def instance(self, address: ActorAddress) -> Any:
        """The actor itself; None once it has ended."""
        reference = self.system._base.actorRegistry.get(address.actorAddressString)
        return None if reference is None else reference.instance

    def is_alive(self, address: ActorAddress) -> bool:
        return self.instance(address) is not None

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire at their moment."""
        end_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= end_s:
            due_s, _, target, message = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, due_s)
            self.system.post(target, message)
        self.now_s = end_s

    # ---- Runtime

    def send(self, sender: ActorAddress, target: ActorAddress, message: object) -> None:
        self.system.send(sender, target, message)

    def post(self, target: ActorAddress, message: object) -> None:
        self.system.post(target, message)

    def post_all(self, mail: Iterable[tuple[ActorAddress, object]]) -> None:
        self.system.post_all(mail)

    def post_later(self, delay_s: float, target: ActorAddress, message: object) -> None:
        heapq.heappush(self._timers, (self.now_s + delay_s, next(self._order), target, message))

    def forget_dead(self) -> None:
        self.system.forget_dead()
