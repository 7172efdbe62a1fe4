"""Who has lost access, the same in all nodes of a cluster: one key of the engine, changed by compare-and-set.

What a node's operator changes is carried out there at once, engine or no engine, and is kept here until it is in the key; what
the key says is told to the node with all of that on top. So nobody gets access back because two nodes did not know of each other:
where they disagree, whoever has lost access anywhere has lost it everywhere, until it is given back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Final

import attrs
import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import Engine, EngineAway, Entry, WrongRevision
from .record_format import FORMAT, NewerFormat

_PREFIX: Final = "shared."
_KEY: Final = f"{_PREFIX}revocations"
_AGAIN_S: Final = 1.0
_NONCE_BYTES: Final = 12
_FIELDS: Final = ("subjects", "fingerprints", "log_outs")

_logger = logging.getLogger(__name__)


@attrs.frozen
class RevocationChange:
    """Who loses access, and who gets it back."""

    added: Revocations = attrs.field(factory=Revocations)
    removed: Revocations = attrs.field(factory=Revocations)

    def applied_to(self, revocations: Revocations) -> Revocations:
        changed: dict[str, Any] = {}
        for name in _FIELDS:
            kept = [each for each in getattr(revocations, name) if each not in getattr(self.removed, name)]
            changed[name] = (*kept, *(each for each in getattr(self.added, name) if each not in kept))
        return Revocations(**changed)


def change_between(before: Revocations, after: Revocations) -> RevocationChange:
    """What makes the one of the other."""

    def only_in(one: Revocations, other: Revocations) -> Revocations:
        return Revocations(**{name: tuple(x for x in getattr(one, name) if x not in getattr(other, name)) for name in _FIELDS})

    return RevocationChange(added=only_in(after, before), removed=only_in(before, after))


def sealed_revocations(cipher: KeyRing, number: int, revocations: Revocations) -> bytes:
    """As the key has them: what only a node of the cluster can read and make."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, msgspec.json.encode([number, attrs.asdict(revocations), FORMAT]), _KEY.encode())


def read_revocations(cipher: KeyRing, value: bytes) -> tuple[int, Revocations] | None:
    """(number, who is refused); None for what no node of this cluster has made. Raises: NewerFormat."""
    try:
        number, fields, version, *_ = msgspec.json.decode(
            cipher.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], _KEY.encode())
        )
        if version > FORMAT:
            raise NewerFormat("a newer version of the gateway has written it")
        return int(number), Revocations(**{name: fields[name] for name in _FIELDS if name in fields})
    except (InvalidTag, msgspec.DecodeError, ValueError, TypeError, InvalidSetting):
        return None


@attrs.define(eq=False)
class _Waiting:
    change: RevocationChange
    done: asyncio.Future[int]


class SharedRevocations:
    """This node's part. own: what it has refused so far.

    tell: takes the number of each new state of the key, which rises, and who is refused from now on.
    """

    def __init__(self, engine: Engine, cipher: KeyRing, own: Revocations, tell: Callable[[int, Revocations], None]) -> None:
        self._engine = engine
        self._cipher = cipher
        self._tell = tell
        self._waiting: list[_Waiting] = []  # not in the key yet
        self._has_changed = asyncio.Event()
        self._number = 0  # the highest that this node has seen, and what it said
        self._latest = own
        self.change(RevocationChange(added=own))

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._follow(), self._push())

    def change(self, change: RevocationChange) -> asyncio.Future[int]:
        """Have it in the key as soon as that can be; the number that the key has then."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(change, done))
        self._has_changed.set()
        return done

    async def _push(self) -> None:
        while True:
            while not self._waiting:
                self._has_changed.clear()
                await self._has_changed.wait()
            pushed = list(self._waiting)
            try:
                number = await self._put([each.change for each in pushed])
            except (EngineAway, WrongRevision):
                await asyncio.sleep(_AGAIN_S)
                continue
            except NewerFormat as error:
                _logger.error("revocations hold at this node alone: those of the cluster are left alone, %s", error)
                await asyncio.sleep(60 * _AGAIN_S)
                continue
            except ValueError as error:
                _logger.error("revocations are too many for the cluster: they hold at this node alone: %s", error)
                await asyncio.sleep(60 * _AGAIN_S)
                continue
            del self._waiting[: len(pushed)]
            for each in pushed:
                if not each.done.done():
                    each.done.set_result(number)

    async def _put(self, changes: list[RevocationChange]) -> int:
        """Raises: EngineAway, WrongRevision, NewerFormat, ValueError."""
        found = await self._engine.get(_KEY)
        number, before = self._read(found)
        after = before
        for change in changes:
            after = change.applied_to(after)
        if found is not None and after == before:
            return number
        value = sealed_revocations(self._cipher, number + 1, after)
        if found is None:
            await self._engine.create(_KEY, value)
        else:
            await self._engine.update(_KEY, value, found.revision)
        return number + 1

    def _read(self, found: Entry | None) -> tuple[int, Revocations]:
        """What the key says; what this node knows of it, where the engine has lost it or has an older state again.

        Raises: NewerFormat.
        """
        read = None if found is None or found.value is None else read_revocations(self._cipher, found.value)
        return (self._number, self._latest) if read is None or read[0] < self._number else read

    async def _follow(self) -> None:
        async for entries in self._engine.watch(_PREFIX):
            for entry in entries:
                if entry.key == _KEY and entry.value is not None:
                    self._take(entry.value)

    def _take(self, value: bytes) -> None:
        try:
            read = read_revocations(self._cipher, value)
        except NewerFormat as error:
            _logger.error("who has lost access at other nodes is not known here: %s", error)
            return
        if read is None or read[0] <= self._number:  # an older state that somebody has put back gives nobody access again
            return
        self._number, self._latest = read
        revocations = self._latest
        for each in self._waiting:
            revocations = each.change.applied_to(revocations)
        self._tell(self._number, revocations)
