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
