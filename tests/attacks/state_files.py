"""Files of the state that somebody has changed while the gateway was not running."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
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
        assert len(databases) == 4, databases
        for number, path in enumerate(databases):
            _CHANGES[(chosen + number) % len(_CHANGES)](path)
        with start_gateway(Path(directory), "embedded", _DEMO, expects_errors=True) as gateway:
            call = tool_call("demo__echo", {"message": "hi"})
            old = ask(gateway.endpoint(), call, session)
            assert (old.status == 200 and old.text == "hi") or old.reason == "session_not_found", old
            assert ask(gateway.endpoint(), call, open_session(gateway.endpoint())).text == "hi"
            assert gateway.restart_count() == 0


def _start_in(mode: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir()
        state.chmod(mode)
        command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "serve", "--embedded", "--port", "0"]
        done = subprocess.run([*command, "--state-dir", str(state)], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 2, done
        assert "others may write" in done.stderr
        assert list(state.iterdir()) == []


def _start_where_others_read() -> None:
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o755)
        with start_gateway(Path(directory), "embedded", _DEMO) as gateway:
            open_session(gateway.endpoint())
            assert state.stat().st_mode & 0o077 == 0
            readable = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
            assert readable == []


@attack(HARMLESS, tries=1, at_once=1, long_tries=6)
async def a_directory_of_everybody(arena: Arena) -> str:
    """A state directory that others may write to, or read: a gateway does not start in the one, and closes the other."""
    number = next(arena.numbers)
    await asyncio.to_thread(_start_in, (0o777, 0o770, 0o722)[number % 3])
    await asyncio.to_thread(_start_where_others_read)
    return HARMLESS


@attack(HARMLESS, tries=1, at_once=1, long_tries=12)
async def databases_that_were_changed(arena: Arena) -> str:
    """Bits flipped in the databases of the state, half of them missing, or noise: a gateway starts and serves."""
    await asyncio.to_thread(_start_again, next(arena.numbers))
    return HARMLESS
