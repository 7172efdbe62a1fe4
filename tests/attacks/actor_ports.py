"""Ports of the actor system, from somebody else on the machine."""

from __future__ import annotations

import pickle
import secrets
import tempfile
from pathlib import Path

import psutil

from mcp_gateway.actors.runtime.packet_seal import MAX_PACKET_BYTES, PacketSeal
from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack
from tests.doubles.packets import Touch, framed

_NODE = ("two cells",)
_ANSWER_S = 0.2


def actor_ports(arena: Arena) -> list[int]:
    """Every port on which a process of the gateway listens, but that for clients."""
    ports = set()
    for process in arena.gateway.processes():
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port != arena.gateway.port:
                assert connection.laddr.ip == "127.0.0.1", f"{connection.laddr} can be reached from elsewhere"
                ports.add(connection.laddr.port)
    assert len(ports) >= 4, ports
    return sorted(ports)


async def packet_to_all(arena: Arena, packet: bytes) -> str:
    """Send it to every port; no answer says that it was taken."""
    for port in actor_ports(arena):
        answer = await arena.say(packet, port=port, patience_s=_ANSWER_S)
        assert answer.body in (b"", framed(pickle.dumps("ACK+DATAERR"))) or b"ACK" not in answer.body, answer
    return HARMLESS


@attack(HARMLESS, forms=_NODE, tries=2, at_once=1, long_tries=40)
async def a_forged_pickle(arena: Arena) -> str:
    """A pickle that runs code when it is read: plain, with an empty seal, with another key, or with the seal of other words."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "executed"
        forged = pickle.dumps(Touch(str(target)))
        other = PacketSeal(secrets.token_bytes(32))
        packets = (
            forged,
            bytes(PacketSeal.OVERHEAD_BYTES) + forged,
            other.seal(forged, arena.gateway.port),
            other.seal(b"x" * len(forged), 1)[: PacketSeal.OVERHEAD_BYTES] + forged,
        )
        for packet in packets:
            await packet_to_all(arena, framed(packet))
        assert not target.exists(), "it was executed"
    return HARMLESS


@attack(HARMLESS, forms=_NODE, tries=3, at_once=1, long_tries=40)
async def a_packet_whose_size_lies(arena: Arena) -> str:
    """Packets of negative, endless and enormous sizes, with megabytes behind them."""
    wrong = (
        b"-5>hello",
        b"99999999999999>" + b"A" * 2_000_000,
        b"%d>" % (MAX_PACKET_BYTES - 1) + b"A" * 2_000_000,
        b"9" * 2_000_000,
    )
    return await packet_to_all(arena, wrong[next(arena.numbers) % len(wrong)])


@attack(HARMLESS, forms=_NODE, tries=2, at_once=1, long_tries=40)
async def words_for_another_server(arena: Arena) -> str:
    """HTTP, TLS and noise to a port of the actor system, the admin port included."""
    words = (f"GET / HTTP/1.1\r\nHost: {arena.host}\r\n\r\n".encode(), b"\x16\x03\x01\x02\x00\x01", secrets.token_bytes(5_000))
    return await packet_to_all(arena, words[next(arena.numbers) % len(words)])
