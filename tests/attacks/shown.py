"""What clients say, where operators read it: their terminals, the log, the dashboard."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from typing import Any

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, PHOENIX, SESSION, attack, on_both_bases
from tests.attacks.speakers import ChannelSpeaker, HttpSpeaker, initialize, speaker

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202ereversed\x08\x08\r\x00"
MARKUP = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script>\'"><svg onload=hacked=1>'
_SEEN_S = 20.0


async def published(arena: Arena, name: str, data: Any) -> None:
    """As an event of a client."""
    async with speaker(arena, PHOENIX) as client:
        assert isinstance(client, ChannelSpeaker)
        await client.reply(await client.push("event", json.dumps({"event": name, "data": data}).encode()))


async def followed(arena: Arena, marker: str) -> bytes:
    """What `mcp-gateway events` writes until it has come to the marker."""

    def run() -> bytes:
        command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "events", "all", "--since", "0"]
        process = subprocess.Popen(
            [*command, "--state-dir", str(arena.gateway.state_dir)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        seen = b""
        try:
            while marker.encode() not in seen:
                line = process.stdout.readline()
                assert line, f"it ended: {seen[-500:]!r}"
                seen += line
        finally:
            process.kill()
            process.wait(5)
            process.stdout.close()
        return seen

    return await asyncio.wait_for(asyncio.to_thread(run), _SEEN_S)


def assert_clean(shown: bytes) -> None:
    text = shown.decode("utf-8", "replace")
    wrong = {character for character in text if (ord(character) < 32 or 0x7F <= ord(character) < 0xA0) and character != "\n"}
    assert not wrong, f"control characters reach the terminal: {wrong}"
    assert "\u202e" not in text, "a direction character reaches the terminal"


@on_both_bases(HARMLESS, tries=1, at_once=1, long_tries=10)
async def escapes_in_an_event(arena: Arena) -> str:
    """Escape sequences in the name and the values of an event, on the terminal of who follows them."""
    marker = f"marker-{uuid.uuid4().hex}"
    await published(arena, f"greeting{ESCAPES}", {"text": ESCAPES, "list": [ESCAPES]})
    await published(arena, "greeting", {"text": f"{ESCAPES} and then"})
    await published(arena, "greeting", {"text": marker})
    assert_clean(await followed(arena, marker))
    return HARMLESS


@on_both_bases(HARMLESS, tries=1, at_once=1, long_tries=10)
async def escapes_in_the_keys_of_an_event(arena: Arena) -> str:
    """Escape sequences in the keys of an event, on the terminal of who follows them."""
    marker = f"marker-{uuid.uuid4().hex}"
    await published(arena, "greeting", {ESCAPES: 1, "inner": {ESCAPES: {ESCAPES: []}}})
    await published(arena, "greeting", {"text": marker})
    assert_clean(await followed(arena, marker))
    return HARMLESS


@on_both_bases(HARMLESS, tries=2, at_once=1)
async def escapes_in_the_log(arena: Arena) -> str:
    """Escape sequences and line breaks in everything that a client says of itself: the log stays lines of JSON."""
    forged = '"}\n{"level": "critical", "text": "forged"}'
    client = HttpSpeaker(arena, {})
    info = {"name": ESCAPES + forged, "version": ESCAPES}
    await client.ask("initialize", initialize(clientInfo=info))
    async with speaker(arena, SESSION) as session:
        await session.ask(f"method{ESCAPES}{forged}")
        await session.ask("tools/call", {"name": f"demo__{ESCAPES}{forged}", "arguments": {}})
        await session.ask("tools/call", {"name": "demo__slow", "arguments": {"seconds": ESCAPES}})
    await arena.post(b"{", "User-Agent: evil\x1b[31m", "X-Forwarded-For: \x1b[31m")
    log = arena.gateway.log
    assert "\x1b" not in log
    assert all("level" in json.loads(line) for line in log.splitlines())
    assert '"text": "forged"' not in log
    return HARMLESS


@attack(HARMLESS, tries=1, at_once=1, long_tries=10)
async def markup_on_the_dashboard(arena: Arena) -> str:
    """Markup in the name and the values of events, and in the names of clients and tools, on the dashboard in Chromium."""
    browser = arena.servers["browser"]
    marker = f"marker-{uuid.uuid4().hex}"

    def look() -> tuple[Any, Any]:
        browser.open(f"{arena.gateway.url}/metrics/dashboard")
        browser.wait_for("#link", "live")
        asyncio.run_coroutine_threadsafe(publish(), loop).result(10)
        browser.wait_for("#events", marker)
        hacked = browser.evaluate("window.hacked")
        return hacked, browser.evaluate("document.querySelectorAll('#events img, #events script, #events svg').length")

    async def publish() -> None:
        client = HttpSpeaker(arena, {})
        await client.ask("initialize", initialize(clientInfo={"name": MARKUP, "version": MARKUP}))
        await published(arena, f"x{MARKUP}", {MARKUP: MARKUP})
        await published(arena, "greeting", {"text": MARKUP, MARKUP: marker})

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(look) == (None, 0)
    return HARMLESS
