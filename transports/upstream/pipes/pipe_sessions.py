"""The sessions on the pipes to one server: whose pipe is whose, and when a session gets one of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Final

import attrs
import msgspec

from mcp_gateway.transports.ports.upstream_port import ignore_events
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, MOVE_ID
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST_LEGACY, negotiated_legacy

from .open_pipe import OpenPipe, session_lost
from .pipe_pool import OPEN_TIMEOUT_S, PipePool
from .pipe_starts import PipeStarts

SESSIONS_REMEMBERED: Final = 10_000
_LONGEST_INITIALIZE_BYTES: Final = 8_192  # of a session that shares its pipe; a client with more to say gets one of its own
# Source: MCP 2025-11-25, basic/lifecycle, "Capability Negotiation": what lets a server ask its client.
_CAN_BE_ASKED: Final = frozenset({"sampling", "elicitation", "roots"})


@attrs.define
class PipeSession:
    """initialize: the client's own params, to move it to another pipe. has_ended: by its client's wish.

    moved_from: where its earlier calls may still run.
    """

    session_id: str
    initialize: bytes = attrs.field(repr=False)
    pipe: OpenPipe
    has_ended: bool = False
    moved_from: OpenPipe | None = None


class PipeSessions:
    """Begins, finds, moves and ends sessions. by_id: {session id: session}, the least recently used first."""

    def __init__(self, pipes: PipePool, starts: PipeStarts) -> None:
        self._pipes = pipes
        self._starts = starts
        self.by_id: OrderedDict[str, PipeSession] = OrderedDict()

    def find(self, session_id: str | None) -> PipeSession:
        """Raises: UpstreamError of fate SESSION_LOST."""
        session = self.by_id.get(session_id or "")
        if session is None or not session.pipe.is_open:
            raise session_lost("the connection of the session is no longer open")
        self.by_id.move_to_end(session.session_id)
        return session

    def begin(self, pipe: OpenPipe, initialize: bytes) -> str:
        """The id of a new session on this pipe."""
        session_id = secrets.token_urlsafe(12)
        self.by_id[session_id] = PipeSession(session_id, b"" if pipe.is_private else initialize, pipe)
        pipe.sessions.add(session_id)
        if len(self.by_id) > SESSIONS_REMEMBERED:
            self.end(next(iter(self.by_id)))
        return session_id

    def end(self, session_id: str | None) -> None:
        session = self.by_id.pop(session_id or "", None)
        if session is None:
            return
        session.has_ended = True
        session.pipe.sessions.discard(session.session_id)
        if session.pipe.is_private:
            self._pipes.close_soon(session.pipe, "the client has ended its session")

    async def move(self, session: PipeSession, timeout_s: float | None) -> None:
        """Give a session that begins to keep state a pipe of its own, opened with its client's parameters.

        Raises: UpstreamError.
        """
        await self._starts.once(f"session {session.session_id}", lambda: self._move(session), timeout_s)

    async def _move(self, session: PipeSession) -> None:
        if session.pipe.is_private:
            return
        shared = session.pipe
        pipe = await self._starts.open(is_private=True, is_modern=False)
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await self._starts.handshake(pipe, Request(MOVE_ID, "initialize", session.initialize), ignore_events)
        if session.has_ended or not pipe.is_open:
            self._pipes.close_soon(pipe, "the session is over")
            raise session_lost("the server has refused another connection for the session")
        pipe.is_initialized = True
        await pipe.tell(session.session_id, INITIALIZED, OPEN_TIMEOUT_S)
        session.pipe, session.moved_from = pipe, shared
        pipe.sessions.add(session.session_id)
        self.by_id[session.session_id] = session  # where it was forgotten because the shared pipe had to make room
        shared.sessions.discard(session.session_id)
        shared.end_streams(session.session_id)

    def forget(self, pipe: OpenPipe) -> None:
        """It has ended, or will be closed: its sessions are lost with it."""
        for session_id in pipe.sessions:
            self.by_id.pop(session_id, None)
        pipe.sessions.clear()


def read_initialize(params: bytes) -> tuple[str, bool]:
    """(the revision it leads to, whether it needs a pipe of its own); what cannot be read is for the server to refuse."""
    try:
        values = jsonrpc.members(params)
        revision = negotiated_legacy(msgspec.json.decode(values["protocolVersion"], type=str))
        can_be_asked = not _CAN_BE_ASKED.isdisjoint(jsonrpc.members(values["capabilities"]))
        return revision, can_be_asked or len(params) > _LONGEST_INITIALIZE_BYTES
    except (msgspec.DecodeError, RecursionError, KeyError):
        return NEWEST_LEGACY, True
