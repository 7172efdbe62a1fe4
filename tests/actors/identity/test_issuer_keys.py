"""Keys of an issuer that answers, is slow, is away, or changes its mind; and keys in a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.identity import issuer_keys
from mcp_gateway.actors.identity.issuer_away import IssuerAwayError
from mcp_gateway.actors.identity.issuer_keys import IssuerKeys
from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.jwks import FLOOR_S, FRESH_S
from tests.doubles.tokens import IssuerKey, jwks

OLD, NEW = IssuerKey.make("old"), IssuerKey.make("new")


@attrs.define
class ScriptedIssuer:
    """An authorization server of which the test decides what it says. answers: {path: (status, body)}."""

    answers: dict[str, tuple[int, bytes]] = attrs.field(factory=dict)
    asked: list[str] = attrs.field(factory=list)
    url: str = ""
    delay_s: float = 0.0

    def publish(self, *keys: IssuerKey, path: str = "/.well-known/oauth-authorization-server") -> None:
        self.answers[path] = (200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode())
        self.answers["/keys"] = (200, jwks(*keys))

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        await asyncio.sleep(self.delay_s)
        status, body = self.answers.get(path, (404, b""))
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        writer.close()


@asynccontextmanager
async def scripted_issuer() -> AsyncIterator[ScriptedIssuer]:
    issuer = ScriptedIssuer()
    server = await asyncio.start_server(issuer.converse, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()


class Clock:
    now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


def with_issuer(
    monkeypatch: pytest.MonkeyPatch, scenario: Callable[[ScriptedIssuer, IssuerKeys, Clock], Coroutine[Any, Any, None]]
) -> None:
    clock = Clock()
    monkeypatch.setattr(issuer_keys, "time", clock)

    async def body() -> None:
        async with scripted_issuer() as issuer:
            keys = IssuerKeys(IssuerSettings(issuer=issuer.url, allow_private=True))
            await scenario(issuer, keys, clock)
            keys.close()

    asyncio.run(body())


def names(keys: tuple[Any, ...]) -> list[str]:
    return [key.key_id for key in keys]


@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"])
def test_keys_are_found_by_discovery(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD, path=path)
        assert names(await keys.current()) == ["old"]
        assert names(await keys.current()) == ["old"]
        assert issuer.asked[-2:] == [path, "/keys"]
        assert issuer.asked.count("/keys") == 1

    with_issuer(monkeypatch, scenario)


def test_keys_are_fetched_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD)
        issuer.delay_s = 0.05
        found = await asyncio.gather(*(keys.current() for _ in range(50)), *(keys.newer() for _ in range(50)))
        assert {key.key_id for each in found for key in each} == {"old"}
        assert issuer.asked.count("/keys") == 1

    with_issuer(monkeypatch, scenario)


def test_an_unknown_key_leads_to_one_look_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD)
        await keys.current()
        issuer.publish(OLD, NEW)
        for _ in range(100):
            assert names(await keys.newer()) == ["old"]
        clock.now_s += FLOOR_S
        assert names(await keys.newer()) == ["old", "new"]
        assert issuer.asked.count("/keys") == 2

    with_issuer(monkeypatch, scenario)


def test_an_issuer_that_is_away_keeps_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD)
        await keys.current()
        issuer.answers["/keys"] = (500, b"")
        clock.now_s += FRESH_S
        assert names(await keys.current()) == ["old"]
        clock.now_s += FLOOR_S
        with pytest.raises(IssuerAwayError, match="status 500"):
            await keys.newer()
        assert names(await keys.current()) == ["old"]

    with_issuer(monkeypatch, scenario)


def test_old_keys_are_used_while_newer_ones_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD)
        await keys.current()
        issuer.publish(NEW)
        issuer.delay_s = 0.05
        clock.now_s += FRESH_S
        assert names(await keys.current()) == ["old"]
        async with asyncio.timeout(10):
            while names(await keys.current()) != ["new"]:
                await asyncio.sleep(0.01)
        assert issuer.asked.count("/keys") == 2

    with_issuer(monkeypatch, scenario)


@pytest.mark.parametrize(
    ("metadata", "keys_document", "text"),
    [
        ((404, b""), (200, b""), "it has no metadata"),
        ((200, b"{}"), (200, b""), "names another issuer"),
        ((200, b'{"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"}'), (200, b""), "another issuer"),
        ((302, b""), (200, b""), "redirect"),
        (None, (404, b""), "status 404"),
        (None, (200, b'{"keys": []}'), "none among them"),
        (None, (200, b"x" * 300_000), "larger than"),
    ],
)
def test_what_is_wrong_with_an_issuer_is_said(
    monkeypatch: pytest.MonkeyPatch, metadata: tuple[int, bytes] | None, keys_document: tuple[int, bytes], text: str
) -> None:
    async def scenario(issuer: ScriptedIssuer, keys: IssuerKeys, clock: Clock) -> None:
        issuer.publish(OLD)
        issuer.answers["/keys"] = keys_document
        if metadata is not None:
            issuer.answers["/.well-known/oauth-authorization-server"] = metadata
        with pytest.raises(IssuerAwayError, match=text):
            await keys.current()
        asked = len(issuer.asked)
        with pytest.raises(IssuerAwayError):  # and is not asked again at once
            await keys.current()
        assert len(issuer.asked) == asked

    with_issuer(monkeypatch, scenario)


def test_an_issuer_on_the_own_network_needs_leave() -> None:
    async def body() -> None:
        async with scripted_issuer() as issuer:
            issuer.publish(OLD)
            with pytest.raises(IssuerAwayError):
                await IssuerKeys(IssuerSettings(issuer=issuer.url.replace("http:", "https:"))).current()
            assert issuer.asked == []

    asyncio.run(body())


def test_keys_in_a_file_are_read_again_for_a_key_that_it_did_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys.json"
    monkeypatch.setattr(issuer_keys, "time", clock)

    async def body() -> None:
        keys = IssuerKeys(IssuerSettings(issuer="https://id.example", jwks_file=str(path)))
        with pytest.raises(IssuerAwayError, match="No such file"):
            await keys.current()
        path.write_bytes(jwks(OLD))
        clock.now_s += FLOOR_S
        assert names(await keys.current()) == ["old"]
        path.write_bytes(jwks(OLD, NEW))
        clock.now_s += FLOOR_S
        assert names(await keys.newer()) == ["old", "new"]

    asyncio.run(body())
