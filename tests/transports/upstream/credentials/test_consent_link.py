"""The link that leads to consent: what it says is what was sealed."""

from __future__ import annotations

import msgspec

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.upstream.credentials.consent_link import ConsentWanted, read_link, sealed_link

SEAL = Seal(b"0" * 32)
WANTED = ConsentWanted("files", "iss ann", ("read",), "https://files.example/meta", 1_000)


def test_a_link_is_read_until_its_end() -> None:
    link = sealed_link(SEAL, WANTED)
    assert read_link(SEAL, link, 999) == WANTED
    assert read_link(SEAL, link, 1_000) is None


def test_what_this_gateway_has_not_given_out_is_no_link() -> None:
    link = sealed_link(SEAL, WANTED)
    other = SEAL.seal("request-state", msgspec.msgpack.encode(WANTED))
    for forged in (
        "",
        "x",
        link[:-1],
        link[:-1] + ("A" if link[-1] != "A" else "B"),
        other,
        sealed_link(Seal(b"1" * 32), WANTED),
    ):
        assert read_link(SEAL, forged, 0) is None
    assert read_link(SEAL, SEAL.seal("consent", b"\x93garbage"), 0) is None
