"""Does what operators ask for on the dashboard, and says so in the audit trail and the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import attrs

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.storage.pin_file import ChangedTool, PinsUnavailable
from mcp_gateway.transports.downstream.operators.actions import ActionOutcome, OperatorAction
from mcp_gateway.transports.identity.denials import reinstated
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused

_logger = logging.getLogger(__name__)
_END_SESSION_S: Final = 2.0
_DONE: Final = {
    "drain": "{} takes nothing new now",
    "undrain": "{} takes traffic again",
    "restart": "{} has been restarted",
    "log-level": "the log level is {}",
    "approve": "{} is approved as it is now",
    "end-session": "the session {} has ended",
    "revoke": "{} has no access any more",
}

NoteAction = Callable[[Principal | None, str, str, str, str, str], None]
"""As `AuditTrail.note_action`."""


class Pins(Protocol):
    """Of `PinFile`, what operators need."""

    def changed(self) -> list[ChangedTool]: ...

    def approve(self, backend: str, tool: str) -> None: ...


@attrs.frozen
class SessionEndAsked:
    """One cell asks another: end this session, if you know it. Answered with whether it did."""

    session: str


class OperatorActions:
    """Carries them out from one cell, for the whole node.

    note: told of each, whatever becomes of it; None where there is no audit trail.
    """

    def __init__(self, port: LoopPort, link: NodeLink, pins: Pins, note: NoteAction | None) -> None:
        self._port = port
        self._link = link
        self._pins = pins
        self._note = note
        self._tasks = HeldTasks()
        port.cells.answer_cells(SessionEndAsked, lambda asked: self._end_own_session(asked.session))

    async def carry_out(self, action: OperatorAction, principal: Principal | None, address: str) -> ActionOutcome:
        """Raises: Refused where the node does not answer."""
        try:
            outcome = await self._outcome(action)
        except TimeoutError:
            text = "not every part of the gateway has answered in time; it may be done all the same"
            self._tell(action, principal, address, "upstream_timeout", text)
            raise Refused("upstream_timeout", text) from None
        self._tell(action, principal, address, "done" if outcome.is_done else "failed", outcome.text)
        return outcome

    def _tell(self, action: OperatorAction, principal: Principal | None, address: str, outcome: str, text: str) -> None:
        who = "somebody on this machine" if principal is None else principal.key
        fields = {"fields": {"user": who, "address": address, "outcome": outcome}, "actor": f"{self._port.cell_name}/edge"}
        _logger.info("%s %s: %s", action.command, action.about, text, extra=fields)
        if self._note is not None:
            self._note(principal, action.command, action.about, outcome, text, address)

    async def _outcome(self, action: OperatorAction) -> ActionOutcome:
        """Raises: TimeoutError"""
        words, done = action.words, ActionOutcome(True, _DONE.get(action.command, "").format(action.about))
        if action.command == "approve":
            return self._approve(words["backend"], words["tool"]) or done
        if action.command == "end-session":
            return done if await self._end_session(words["session"]) else ActionOutcome(False, "no such session is open any more")
        if action.command == "restart" and words["child"] == self._port.cell_name:
            # Its end waits for its requests, of which this is one.
            self._tasks.start(_retrieved(self._link.change("restart", dict(words))))
            return ActionOutcome(True, f"{words['child']} restarts")
        if action.command in ("revoke", "reinstate"):
            if self._port.settings.auth is None:
                return ActionOutcome(False, "nobody logs in here, so nobody has access to lose")
            undo = action.command == "reinstate"
            answer = await self._link.change("revoke", {**words, "undo": undo})
            return _outcome_of(answer, ActionOutcome(True, reinstated(action.about, answer.get("denied", ()))) if undo else done)
        # A name without a replica may be a node's, which would end: what is meant here is a backend, be it gone meanwhile.
        asked = {"replica": "", **words} if action.command in ("drain", "undrain") else dict(words)
        return _outcome_of(await self._link.change(action.command, asked), done)

    def _approve(self, backend: str, tool: str) -> ActionOutcome | None:
        try:
            if not any((each.backend, each.tool) == (backend, tool) for each in self._pins.changed()):
                return ActionOutcome(False, f"{backend}/{tool} is what was approved")
            self._pins.approve(backend, tool)
        except PinsUnavailable as error:
            return ActionOutcome(False, f"the pins cannot be written: {error}")
        return None

    async def _end_session(self, key: str) -> bool:
        """In every cell, whichever knows it."""
        if await self._end_own_session(key):
            return True
        for cell in self._port.cells.other_cells:
            try:
                if await self._port.cells.ask_cell(cell, SessionEndAsked(key), 2 * _END_SESSION_S):
                    return True
            except (LookupError, TimeoutError):
                continue
        return False

    async def _end_own_session(self, key: str) -> bool:
        state = self._port.sessions.known(key)
        if state is None:
            return False
        self._port.say_farewell([state], time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SESSION_S):
                while not self._port.sessions.is_ended(key):  # the edge does it, after what it has to do before
                    await asyncio.sleep(0.02)
        return self._port.sessions.is_ended(key)


def _outcome_of(answer: Mapping[str, Any], done: ActionOutcome) -> ActionOutcome:
    """answer: as in `CommandAnswered`."""
    if "refused" in answer:
        return ActionOutcome(False, "; ".join(answer["refused"]))
    if "error" in answer:
        return ActionOutcome(False, str(answer["error"]))
    return done


async def _retrieved(work: Coroutine[Any, Any, Any]) -> None:
    """Of what this cell does not live to see the end."""
    try:
        await work
    except TimeoutError:
        _logger.warning("the restart of this cell takes long")
