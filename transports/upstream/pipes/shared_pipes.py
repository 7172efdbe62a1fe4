"""The pipes that many sessions, or all stateless requests, share: one for each revision, and how the server's era shows on it.

Source: MCP 2026-07-28, basic/transports/stdio, "Backward Compatibility".
"""

from __future__ import annotations

import asyncio
from typing import Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.upstream_port import UpstreamError, ignore_events, only_legacy
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, PROBE_ID, discover, initialize
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST, NEWEST_LEGACY

from .open_pipe import OpenPipe
from .pipe_pool import OPEN_TIMEOUT_S, PipePool
from .pipe_starts import PipeStarts, not_opened

DISCOVER_TIMEOUT_S: Final = 10.0

_NO_ERA: Final = "the server takes neither a modern request nor a handshake"
_MODERN: Final = NEWEST  # names the shared pipe of all stateless requests, as a legacy revision names that of its sessions


class SharedPipes:
    """Finds or opens the pipe that all of one revision share. era: of the server, which is found out where nobody knows it."""

    def __init__(self, pipes: PipePool, starts: PipeStarts, era: ServerEra) -> None:
        self._pipes = pipes
        self._starts = starts
        self._era = era
        self._shared: dict[str, OpenPipe] = {}  # {revision: pipe}
        self._questions = HeldTasks()

    def forget(self, pipe: OpenPipe) -> None:
        """It has ended, or will be closed."""
        for key in [key for key, shared in self._shared.items() if shared is pipe]:
            del self._shared[key]
            if key == _MODERN:
                self._era.forget()  # what is started or listens next may be another server

    # ---- of sessions

    async def legacy_pipe(self, revision: str, initialize: Request, timeout_s: float | None = None) -> OpenPipe:
        """Raises: UpstreamError."""
        is_searched = self._era.speaks_modern is None and self._starts.is_under_way(_MODERN)
        if revision == NEWEST_LEGACY and is_searched:
            await self._era_found(timeout_s)  # on a pipe that serves this revision where the server turns out to be a legacy one
        pipe = self._shared.get(revision)
        if pipe is not None and pipe.is_open:
            return pipe
        opened: OpenPipe = await self._starts.once(revision, lambda: self._open_legacy(revision, initialize), timeout_s)
        return opened

    async def _open_legacy(self, revision: str, initialize: Request) -> OpenPipe:
        pipe = await self._starts.open(is_private=False, is_modern=False)
        async with asyncio.timeout(self._starts.longest_s):
            await self._starts.handshake(pipe, initialize, ignore_events)
            if pipe.is_open:  # the server has not refused
                await self._share(revision, pipe)
        return pipe

    async def _share(self, revision: str, pipe: OpenPipe) -> None:
        """Let all sessions of a revision have the pipe, whose server has answered the handshake.

        Raises: UpstreamError.
        """
        self._shared[revision] = pipe
        pipe.is_initialized = True
        try:
            await pipe.tell("", INITIALIZED, None)
        except UpstreamError as error:
            raise not_opened(error) from None

    # ---- of stateless requests

    async def modern_pipe(self, timeout_s: float | None) -> OpenPipe:
        """Raises: UpstreamError; of fate UNSUPPORTED where the server is a legacy one."""
        if self._era.speaks_modern is False:
            raise only_legacy()
        pipe = self._shared.get(_MODERN)
        if pipe is not None and pipe.is_open:
            return pipe
        opened: OpenPipe = await self._starts.once(_MODERN, self._open_modern, timeout_s)
        return opened

    async def _era_found(self, timeout_s: float | None) -> None:
        """Wait for the search that is under way. Where it has failed, whoever waits finds out more by a pipe of its own.

        Raises: UpstreamError where it takes longer.
        """
        try:
            await self._starts.once(_MODERN, self._open_modern, timeout_s)
        except UpstreamError as error:
            if error.failure.reason == "upstream_timeout":
                raise

    async def _open_modern(self) -> OpenPipe:
        pipe = await self._starts.open(is_private=False, is_modern=True)
        if self._era.speaks_modern is None:
            self._era.is_starting = self._starts.is_starting(pipe)
            try:
                await self._find_era(pipe)
            finally:
                self._era.is_starting = False
        self._shared[_MODERN] = pipe
        return pipe

    # ---- the era

    async def _find_era(self, pipe: OpenPipe) -> None:
        """Learn the server's era from how it takes `server/discover`, or where that does not tell, a handshake.

        Both go over the very same pipe: a start may cost minutes. Only a server that leaves on what it does not know is started
        again, for the handshake alone. That a server which is silent or leaves must take a handshake to count as a legacy one,
        and otherwise as a broken one, is ours.

        Raises: UpstreamError; of fate UNSUPPORTED where the server is a legacy one, whose pipe is kept for its sessions.
        """
        longest_s = self._starts.longest_s
        discovery = self._questions.start(_answer(pipe, discover(PROBE_ID), longest_s))
        await asyncio.wait((discovery,), timeout=DISCOVER_TIMEOUT_S)
        handshake: asyncio.Task[Response | None] | None = None
        try:
            if not discovery.done():  # it is starting, or ignores what it does not know
                handshake = self._questions.start(_answer(pipe, initialize(PROBE_ID), longest_s))
                await asyncio.wait((discovery, handshake), return_when=asyncio.FIRST_COMPLETED)
                if not discovery.done() and not _is_taken(handshake.result()):
                    await asyncio.wait((discovery,), timeout=DISCOVER_TIMEOUT_S)
            if discovery.done():
                self._era.observe(discovery.result())
            if self._era.speaks_modern:
                self._starts.note_word()
                return
            if pipe.is_open:
                handshake = handshake or self._questions.start(_answer(pipe, initialize(PROBE_ID), OPEN_TIMEOUT_S))
                await asyncio.wait((handshake,), timeout=OPEN_TIMEOUT_S)
            await self._take_as_legacy(pipe, handshake.result() if handshake is not None and handshake.done() else None)
        finally:
            discovery.cancel()
            if handshake is not None:
                handshake.cancel()

    async def _take_as_legacy(self, pipe: OpenPipe, answer: Response | None) -> None:
        """answer: to the handshake on the pipe, if any.

        Raises: UpstreamError, always; of fate UNSUPPORTED where the server is a legacy one.
        """
        is_decided = self._era.speaks_modern is False
        shared = self._shared.get(NEWEST_LEGACY)
        if pipe.is_open and _is_taken(answer) and (shared is None or not shared.is_open):
            self._starts.note_word()
            pipe.turn_legacy()
            pipe.answer = answer
            await self._share(NEWEST_LEGACY, pipe)
        elif not pipe.is_open and not is_decided and (shared is None or not shared.is_open):
            again = initialize(PROBE_ID)
            opened = await self._starts.once(NEWEST_LEGACY, lambda: self._open_legacy(NEWEST_LEGACY, again), None)
            if not opened.is_open:
                raise UpstreamError(Fate.UNREACHABLE, _NO_ERA)
        else:
            text = _NO_ERA if pipe.has_spoken else "the server has not said a word"
            self._starts.note_silence(pipe)
            self._pipes.close_soon(pipe, "the server does not take a handshake here")
            if not is_decided and not _is_taken(answer):
                raise UpstreamError(Fate.UNREACHABLE, text)
        self._era.decide(speaks_modern=False)
        raise only_legacy()


async def _answer(pipe: OpenPipe, request: Request, timeout_s: float) -> Response | None:
    """None where there is none."""
    try:
        return await pipe.request("", request, ignore_events, timeout_s)
    except UpstreamError:
        return None


def _is_taken(answer: Response | None) -> bool:
    return answer is not None and bool(answer.result)
