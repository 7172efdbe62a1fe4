"""This node's parts of the limits that hold for the whole cluster, on its event loop: one question a second to the allocator,
which is one of the nodes. No request of a client waits for it.

Who holds what is decided by `limit_parts`. Questions and answers are sealed, and each counts once: whoever can write to the
engine can have parts stay as they are, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing
from mcp_gateway.transports.telemetry import metrics

from .engine import Engine, EngineAway, NoResponders
from .limit_parts import Allocator, Demand, Held

REPORT_S: Final = 1.0
_ANSWER_S: Final = 0.8
_NONCE_BYTES: Final = 12
_QUESTION: Final = b"limits asked"
_ANSWER: Final = b"limits held"

Members = tuple[tuple[str, int], ...]
"""(node, epoch) of each, sorted; nobody where this node is no member."""


class _Report(msgspec.Struct, frozen=True, array_like=True):
    members: Members
    node: str
    number: int
    held: Held
    wanted: dict[str, float]


class _Allotted(msgspec.Struct, frozen=True, array_like=True):
    members: Members
    node: str
    number: int
    held: Held


_decode_report = msgspec.msgpack.Decoder(_Report).decode
_decode_allotted = msgspec.msgpack.Decoder(_Allotted).decode
_encode = msgspec.msgpack.encode


class LimitMember(Protocol):
    """The node in its cluster, as far as limits need it."""

    @property
    def node(self) -> str: ...

    def members(self) -> Members: ...


class SharedLimits:
    """tell: takes what the node holds from now on, before anybody else is told that it holds no more."""

    def __init__(self, engine: Engine, cipher: KeyRing, member: LimitMember, tell: Callable[[Held], None]) -> None:
        self._engine = engine
        self._cipher = cipher
        self._member = member
        self._tell = tell
        self._demand = Demand()
        self._number = 0
        self._allocator: tuple[Members, Allocator] | None = None
        self._numbers: dict[str, int] = {}  # of the last report of each node to this allocator
        self._served: Members = ()
        self._stop_serving: Callable[[], Awaitable[None]] | None = None
        self.held = Held()

    def asked(self, wanted: Mapping[str, float]) -> None:
        """A cell of this node was asked for so much; see `Demand.asked`."""
        self._demand.asked(wanted)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            members = self._member.members()
            wanted = self._demand.next_report()
            if members:
                # Nothing has changed: nobody has answered, or nobody who counts.
                with contextlib.suppress(EngineAway, NoResponders):
                    await self._serve(members)
                    await self._report(members, wanted)
            await asyncio.sleep(REPORT_S)

    async def _report(self, members: Members, wanted: dict[str, float]) -> None:
        """Raises: EngineAway, NoResponders."""
        self._number += 1
        report = _Report(members, self._member.node, self._number, self.held, wanted)
        answer = await self._engine.request(_subject(members), self._seal(_QUESTION, _encode(report)), _ANSWER_S)
        try:
            allotted = _decode_allotted(self._open(_ANSWER, answer))
        except (InvalidTag, msgspec.DecodeError, ValueError):
            return
        # Of an allocator that has been succeeded meanwhile, or to a report that was given up, nothing is taken.
        if (allotted.members, allotted.node, allotted.number) != (self._member.members(), self._member.node, self._number):
            return
        if allotted.held != self.held:
            self.held = allotted.held
            self._tell(self.held)
            metrics.cluster_limit_part.set(self.held.default)

    # ---- the allocator

    async def _serve(self, members: Members) -> None:
        """Be the allocator of these members where this node is the first of them. Raises: EngineAway."""
        if members == self._served:
            return
        if self._stop_serving is not None:
            await self._stop_serving()
            self._stop_serving = None
        if members[0][0] == self._member.node:
            self._stop_serving = await self._engine.serve(_subject(members), self._answer)
        self._served = members

    async def _answer(self, packet: bytes) -> bytes:
        try:
            report = _decode_report(self._open(_QUESTION, packet))
        except (InvalidTag, msgspec.DecodeError, ValueError):
            return b""
        members = self._member.members()
        if report.members != members or report.node not in dict(members):
            return b""
        if self._allocator is None or self._allocator[0] != members:
            self._allocator, self._numbers = (members, Allocator(dict(members))), {}
        if report.number <= self._numbers.get(report.node, 0):  # it has come before: what it says may not be so any more
            return b""
        self._numbers[report.node] = report.number
        held = self._allocator[1].answer(report.node, report.held, report.wanted)
        return self._seal(_ANSWER, _encode(_Allotted(members, report.node, report.number, held)))

    def _seal(self, kind: bytes, text: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text, kind)

    def _open(self, kind: bytes, packet: bytes) -> bytes:
        """Raises: InvalidTag, ValueError."""
        return self._cipher.decrypt(packet[:_NONCE_BYTES], packet[_NONCE_BYTES:], kind)


def _subject(members: Members) -> str:
    """Of the first of the members, as long as it has this epoch."""
    name, epoch = members[0]
    return f"limits.{name}.{epoch}"
