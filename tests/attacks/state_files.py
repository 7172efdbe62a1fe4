"""Files of the state that somebody has changed while the gateway was not running."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack
from tests.end_to_end.raw_http import ask, open_session, tool_call
from tests.end_to_end.running_gateway import start_gateway

_DEMO = [{"name": "demo", "builtin": "demo"}]


def _flip_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(40):
        content[int.from_bytes(os.urandom(3)) % len(content)] ^= 1 << (os.urandom(1)[0] % 8)
    path.write_bytes(content)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _fill_with_noise(path: Path) -> None:
    path.write_bytes(os.urandom(max(100, path.stat().st_size)))


_CHANGES = (_flip_bits, _cut_short, _fill_with_noise)


def _start_again(chosen: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with start_gateway(Path(directory), "embedded", _DEMO) as gateway:
            session = open_session(gateway.endpoint())
        databases = sorted((Path(directory) / "state").glob("*.sqlite3"))
        assert len(databases) == 3, databases
        for number, path in enumerate(databases):
            _CHANGES[(chosen + number) % len(_CHANGES)](path)
        with start_gateway(Path(directory), "embedded", _DEMO, expects_errors=True) as gateway:
            call = tool_call("demo__echo", {"message": "hi"})
            old = ask(gateway.endpoint(), call, session)
            assert (old.status == 200 and old.text == "hi") or old.reason == "session_not_found", old
            assert ask(gateway.endpoint(), call, open_session(gateway.endpoint())).text == "hi"
            assert gateway.restart_count() == 0


@attack(HARMLESS, tries=1, at_once=1, long_tries=12)
async def databases_that_were_changed(arena: Arena) -> str:
    """Bits flipped in the databases of the state, half of them missing, or noise: a gateway starts and serves."""
    await asyncio.to_thread(_start_again, next(arena.numbers))
    return HARMLESS
