"""Backends and what else operators change, the same in all nodes of a cluster: one key of the engine, changed by compare-and-set.

A change is made of what its node has taken, and is in the key before any node carries it out, its own too. Where another change
was faster, or the engine is away, nothing changes anywhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import Engine, Entry, WrongRevision

_PREFIX: Final = "settings."
_KEY: Final = f"{_PREFIX}shared"
_NONCE_BYTES: Final = 12

_logger = logging.getLogger(__name__)


class ClusterSettingsState(msgspec.Struct, frozen=True, array_like=True):
    """What the key says. number: rises with each change. file, before, tables: as in `ShareSettings`, opaque here.

    Another version may add fields behind these; what it means by `tables` is found out by whoever reads them.
    """

    number: int
    file: str
    before: str
    tables: bytes


_decode = msgspec.msgpack.Decoder(ClusterSettingsState).decode


def sealed_state(cipher: KeyRing, state: ClusterSettingsState) -> bytes:
    """As the key has it: what only a node of the cluster can read and make; headers and environments in it are secrets."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, msgspec.msgpack.encode(state), _KEY.encode())


def read_state(cipher: KeyRing, value: bytes) -> ClusterSettingsState | None:
    """None for what no node of this cluster has made."""
    try:
        return _decode(cipher.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], _KEY.encode()))
    except (InvalidTag, msgspec.DecodeError, ValueError):
        return None


class SharedSettings:
    """This node's part.

    tell:   takes each state of the key that is newer than the one before.
    lowest: number of the state that the node had before it was started, by `keep`; an older one is not told.
    keep:   takes the number of each state before it is told.
    """

    def __init__(
        self,
        engine: Engine,
        cipher: KeyRing,
        tell: Callable[[ClusterSettingsState], None],
        *,
        lowest: int = 0,
        keep: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._engine = engine
        self._cipher = cipher
        self._tell = tell
        self._keep = keep
        self._lowest = lowest
        self._number = 0  # the highest that has been told

    async def run(self) -> None:
        """Until cancelled."""
        async for entries in self._engine.watch(_PREFIX):
            for entry in entries:
                if entry.key == _KEY and (state := self._read(entry)) is not None and state.number > self._number:
                    self._number = state.number  # an older one that somebody has put back is not taken again
                    self._keep(state.number)
                    self._tell(state)

    async def change(self, taken: int, file: str, before: str, tables: bytes) -> int:
        """Put these settings into the key, which were made of those with the number `taken`; their number.

        Raises: WrongRevision where there are newer ones, and nothing has changed; EngineAway; ValueError for too many.
        """
        found = await self._engine.get(_KEY)
        state = None if found is None else self._read(found)
        if state is not None and state.number > taken:
            raise WrongRevision(_KEY)
        number = max(taken, self._number, self._lowest) + 1  # also where the engine has lost the key
        value = sealed_state(self._cipher, ClusterSettingsState(number, file, before, tables))
        if found is None:
            await self._engine.create(_KEY, value)
        else:
            await self._engine.update(_KEY, value, found.revision)
        return number

    def _read(self, entry: Entry) -> ClusterSettingsState | None:
        """None for what says nothing: forged, or older than what the node has had before."""
        state = None if entry.value is None else read_state(self._cipher, entry.value)
        if state is None or state.number >= self._lowest:
            return state
        _logger.error(
            "the cluster's settings are number %d, and this node had %d before: somebody has put back older ones, which are left "
            "out until the next change",
            state.number,
            self._lowest,
        )
        return None
