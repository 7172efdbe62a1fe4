"""The engine that `[cluster]` names: with a password, over TLS, and only to a server that shows what it should."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest

from mcp_gateway.actors.cluster.configured_engine import connect, tls_context
from mcp_gateway.actors.cluster.engine import EngineAway
from mcp_gateway.config.cluster_settings import ClusterSettings
from tests.doubles.certificates import Authority
from tests.doubles.nats_server import NatsServer


def settings(server: NatsServer, **more: str) -> ClusterSettings:
    return ClusterSettings(url=server.url, node="a", key_file="unread", **more)


async def can_connect(cluster: ClusterSettings) -> bool:
    try:
        engine = await connect(cluster, 100)
    except EngineAway:
        return False
    await engine.close()
    return True


def test_a_log_that_the_server_has_lost_begins_beyond_the_lost_one_whoever_makes_it_again(tmp_path: Path) -> None:
    """Also by the connection that has made the lost one: else new events have ids that every node has seen already."""

    async def test() -> None:
        with NatsServer(tmp_path / "data") as server:
            engine = await connect(settings(server), 100)
            for number in range(1, 4):
                await engine.append("a", number, b"")
            last = (await engine.read_log(0)).last_sequence
            server.kill()
            server.folder = tmp_path / "other"
            server.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        await engine.read_log(last)  # who finds none makes it
                        await engine.append("a", 4, b"")
                        page = await engine.read_log(last)
                        break
                    except EngineAway:
                        await asyncio.sleep(0.1)
            assert [entry.number for entry in page.entries] == [4]
            assert page.first_sequence > last
            await engine.close()

    asyncio.run(test())


def test_a_server_that_asks_for_a_password_is_given_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("secret\n")
    (tmp_path / "bad").write_text("guess\n")

    async def test() -> None:
        with NatsServer(tmp_path / "data", "--user", "gateway", "--pass", "secret") as server:
            assert await can_connect(settings(server, user="gateway", password_file=str(tmp_path / "good")))
            assert not await can_connect(settings(server, user="gateway", password_file=str(tmp_path / "bad")))
            assert not await can_connect(settings(server))

    asyncio.run(test())


def test_a_server_over_tls_is_believed_with_a_certificate_of_the_authority_only(tmp_path: Path) -> None:
    for name in ("good", "other"):
        (tmp_path / name).mkdir()
    good, other = Authority(tmp_path / "good"), Authority(tmp_path / "other")
    certificate, key = good.certify("server")

    async def test() -> None:
        options = ("--tls", "--tlscert", str(certificate), "--tlskey", str(key))
        with NatsServer(tmp_path / "data", *options) as server:
            plain = settings(server)
            overt = attrs.evolve(plain, url=server.url.replace("nats:", "tls:"))
            assert await can_connect(attrs.evolve(overt, tls_ca=str(good.path)))
            assert not await can_connect(attrs.evolve(overt, tls_ca=str(other.path)))
            assert not await can_connect(overt)

    asyncio.run(test())


def test_without_tls_nothing_of_it_is_read_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    assert tls_context(settings(server)) is None
    with pytest.raises(FileNotFoundError):
        tls_context(settings(server, tls_ca=str(tmp_path / "none")))


@pytest.mark.parametrize("key", ["password_file", "tls_ca"])
def test_files_that_are_just_being_replaced_are_waited_for_like_the_engine(key: str, tmp_path: Path) -> None:
    """Each process of a node connects by itself, at any time: one that ended over it would take the node along in the end."""

    async def test() -> None:
        with pytest.raises(EngineAway, match=r"\[cluster\]: "):
            await connect(settings(NatsServer(tmp_path), **{key: str(tmp_path / "none")}), 100)

    asyncio.run(test())
