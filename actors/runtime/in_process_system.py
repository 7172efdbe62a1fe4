"""Thespian's simpleSystemBase inside a running event loop: sending from loop code, pumping, timers.

Owns every private call that the in-process base needs;
`tests/actors/runtime/test_in_process_system.py` fails when Thespian changes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from thespian.actors import ActorAddress, ActorExitRequest, ActorSystem, ActorSystemMessage
from thespian.system.simpleSystemBase import PendingSend

from .gateway_actor import GatewayActor

_THESPIAN_MAIL = ActorSystemMessage
"""Mail with a meaning for Thespian itself: exits, ends of children, poison."""


class InProcessSystem:
    """One isolated in-process actor system, run by the event loop it was created on.

    Messages never leave the process and cannot be lost; a message costs about 3 us. Implements `lifecycle.Runtime`.
    """

    def __init__(self) -> None:
        self._system = ActorSystem("simpleSystemBase", transientUnique=True, logDefs=False)
        self._base = self._system._systemBase
        self._pending: list[Any] = self._base._pendingSends
        self._registry: dict[str, Any] = self._base.actorRegistry
        self._is_pumping = False
        self._loop = asyncio.get_running_loop()

    def create(self, actor_class: type, wiring: object) -> ActorAddress:
        """Create a top-level actor and send it its first message."""
        address: ActorAddress = self._system.createActor(actor_class)
        self.post(address, wiring)
        return address

    def send(self, sender: ActorAddress, target: ActorAddress, message: object) -> None:
        """Queue it behind all other mail: as Thespian's `actor_send` does, whose lock is for threads that there are none of."""
        self._pending.append(PendingSend(sender, message, target))

    def post(self, target: ActorAddress, message: object) -> None:
        """Send from loop code and run every actor until all is quiet; from inside a handler, only queue.

        The target is named as the sender as well: an answer to nobody must not pile up in Thespian's external requester.
        """
        is_next = not self._is_pumping and not self._pending
        actor = self._gateway_actor(target, message) if is_next else None
        if actor is None:
            self.send(target, target, message)
        else:  # nothing is ahead of it: it need not be queued
            self._is_pumping = True
            try:
                actor.receiveMessage(message, target)
            finally:
                self._is_pumping = False
        if self._pending:
            self.pump()

    def post_all(self, mail: Iterable[tuple[ActorAddress, object]]) -> None:
        """Post several messages, then let the actors run once."""
        for target, message in mail:
            self.send(target, target, message)
        if not self._is_pumping:
            self.pump()

    def post_later(self, delay_s: float, target: ActorAddress, message: object) -> None:
        self._loop.call_later(delay_s, self.post, target, message)

    def pump(self) -> None:
        """Deliver all pending messages, never re-entrantly: Thespian would run an actor inside itself."""
        if self._is_pumping:
            return
        self._is_pumping = True
        pending, deliver = self._pending, self._base._runSingleSend
        try:
            while pending:
                mail = pending.pop(0)
                actor = self._gateway_actor(mail.toActor, mail.msg)
                if actor is not None:
                    actor.receiveMessage(mail.msg, mail.sender)
                else:
                    deliver(mail)
        finally:
            self._is_pumping = False

    def _gateway_actor(self, target: ActorAddress, message: object) -> GatewayActor | None:
        """Who takes the message without more ado; None where Thespian has to deliver it.

        That does as much for ordinary mail, but for its log call and its retries: a GatewayActor never raises.
        """
        reference = self._registry.get(target._aaddr)
        actor = reference.instance if reference is not None else None
        return actor if isinstance(actor, GatewayActor) and not isinstance(message, _THESPIAN_MAIL) else None

    def forget_dead(self) -> None:
        """Drop the registry entries that simpleSystemBase keeps for ever for actors that have ended."""
        for key in [key for key, reference in self._registry.items() if reference is None]:
            del self._registry[key]

    def stop(self, root: ActorAddress) -> None:
        """End the tree below root; simpleSystemBase's own shutdown would send no ActorExitRequest."""
        self.post(root, ActorExitRequest())
        self._system.shutdown()
