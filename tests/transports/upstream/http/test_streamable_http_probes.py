"""How a server over Streamable HTTP is asked whether it is well: in its own era, in its own revision, in one session."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from tests.doubles.patience import on_loop
from tests.doubles.scripted_http import BROKEN, LEGACY, MODERN, OK, Seen, ask, call, refused, reply, serving


def probed_server(
    speaks: str, *, session_ids: bool = True, revision: str = LEGACY
) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    """A server of one era. A legacy one knows the newest session only, and refuses every other revision than its own."""
    sessions: list[str] = []

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_modern = seen.headers.get("mcp-protocol-version") == MODERN
        if speaks == "modern" or (is_modern and speaks == "both"):
            await reply(OK if seen.method == "server/discover" else {"error": {"code": -32601, "message": "?"}})(seen, writer)
        elif is_modern:
            await reply(b"Bad Request: Unsupported protocol version", "400 Bad Request", "text/plain")(seen, writer)
        elif seen.method != "initialize" and seen.headers.get("mcp-protocol-version") != revision:
            await reply(b"Bad Request: Unsupported protocol version", "400 Bad Request", "")(seen, writer)
        elif seen.method == "initialize":
            sessions.append(f"s{len(sessions)}")
            await reply({"result": {"protocolVersion": revision}}, **({"Mcp_Session_Id": sessions[-1]} if session_ids else {}))(
                seen, writer
            )
        elif session_ids and seen.headers.get("mcp-session-id") != sessions[-1]:
            await reply(b"", "404 Not Found", "")(seen, writer)
        elif seen.method == "forget":
            sessions.append("none")
        else:
            await reply(OK if "id" in seen.body else b"", "200 OK" if "id" in seen.body else "202 Accepted")(seen, writer)

    script.sessions = sessions  # type: ignore[attr-defined]
    return script


def test_a_modern_server_is_probed_by_discovery() -> None:
    async def body() -> None:
        async with serving(probed_server("modern")) as (server, wire):
            for _ in range(2):
                await wire.probe(2.0)
            assert [seen.method for seen in server.seen] == ["server/discover"] * 2
            meta = server.seen[0].body["params"]["_meta"]
            assert meta["io.modelcontextprotocol/protocolVersion"] == MODERN

    on_loop(body)


def test_a_legacy_server_is_probed_by_ping_in_a_session_that_is_closed_with_the_wire() -> None:
    async def body() -> None:
        async with serving(probed_server("legacy")) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            opening = ["server/discover", "initialize", "notifications/initialized"]
            assert [seen.method for seen in server.seen] == [*opening, "ping", "ping"]
            # What has been learned holds for calls as well: a modern one is refused before it is sent.
            error = await refused(wire, call(revision=MODERN))
            assert (error.fate is Fate.UNSUPPORTED, error.fate.is_fault) == (True, False)
            assert len(server.seen) == 5
            await wire.close()
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-session-id"]) == ("DELETE", "s0")

    on_loop(body)


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize("is_pinned", [False, True])
def test_probes_speak_the_revision_that_the_server_has_chosen(revision: str, is_pinned: bool) -> None:
    """A server may refuse every other. Source: MCP 2025-11-25, basic/transports, "Protocol Version Header"."""

    async def body() -> None:
        pinned = {"protocol": revision} if is_pinned else {}
        async with serving(probed_server("legacy", revision=revision), **pinned) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            in_session = [seen for seen in server.seen if "mcp-session-id" in seen.headers]
            assert [seen.method for seen in in_session] == ["notifications/initialized", "ping", "ping"]
            assert {seen.headers["mcp-protocol-version"] for seen in in_session} == {revision}
            (opening,) = (seen for seen in server.seen if seen.method == "initialize")
            assert opening.body["params"]["protocolVersion"] == (revision if is_pinned else LEGACY)
            await wire.close()
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-protocol-version"]) == ("DELETE", revision)

    on_loop(body)


def test_a_legacy_server_that_fails_at_discovery_is_well_where_it_answers_in_a_session() -> None:
    async def body() -> None:
        sound = probed_server("legacy")

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (reply(b"", "500 Oops", "") if seen.method == "server/discover" else sound)(seen, writer)

        async with serving(script) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            opening = ["server/discover", "initialize", "notifications/initialized"]
            assert [seen.method for seen in server.seen] == [*opening, "ping", "ping"]

    on_loop(body)


def test_a_probe_session_that_is_given_up_is_ended() -> None:
    async def body() -> None:
        sound, is_broken = probed_server("legacy"), False

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (reply(b"", "500 Oops", "") if is_broken and seen.method == "ping" else sound)(seen, writer)

        async with serving(script) as (server, wire):
            await wire.probe(2.0)
            is_broken = True
            with pytest.raises(UpstreamError):
                await wire.probe(2.0)
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-session-id"]) == ("DELETE", "s0")

    on_loop(body)


def test_a_lost_probe_session_is_opened_again_and_is_no_problem() -> None:
    async def body() -> None:
        script = probed_server("legacy")
        async with serving(script) as (server, wire):
            await wire.probe(2.0)
            script.sessions.append("another")  # type: ignore[attr-defined]
            await wire.probe(2.0)
            assert [seen.method for seen in server.seen[-3:]] == ["ping", "initialize", "notifications/initialized"]
            await wire.probe(2.0)
            assert server.seen[-1].method == "ping"

    on_loop(body)


@pytest.mark.parametrize(
    ("status", "error"),
    [("400 Bad Request", None), ("410 Gone", None), ("200 OK", {"error": {"code": -32600, "message": "no session"}})],
)
def test_a_probe_session_is_opened_again_however_the_server_says_that_it_is_lost(
    status: str, error: dict[str, object] | None
) -> None:
    known: list[str] = []
    numbers = itertools.count()

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "initialize":
            known.append(f"s{next(numbers)}")
            await reply({"result": {"protocolVersion": LEGACY}}, Mcp_Session_Id=known[-1])(seen, writer)
        elif seen.method == "server/discover":
            await reply(b"", "400 Bad Request", "")(seen, writer)
        elif seen.verb == "POST" and seen.headers.get("mcp-session-id") not in known:
            await reply(error or b"", status)(seen, writer)
        else:
            await reply({"result": {}} if "id" in seen.body else b"")(seen, writer)

    async def body() -> None:
        async with serving(script) as (server, wire):
            await wire.probe(2.0)
            known.clear()
            await wire.probe(2.0)
            assert len(known) == 1
            assert [seen.method for seen in server.seen].count("initialize") == 2

    on_loop(body)


def test_a_server_without_session_ids_is_probed_by_the_handshake() -> None:
    async def body() -> None:
        async with serving(probed_server("legacy", session_ids=False)) as (server, wire):
            for _ in range(2):
                await wire.probe(2.0)
            assert [seen.method for seen in server.seen].count("initialize") == 2

    on_loop(body)


@pytest.mark.parametrize("what", ["500 with a page", "no JSON", "no HTTP"])
def test_a_probe_of_a_broken_server_fails_and_decides_nothing_about_its_era(what: str) -> None:
    async def body() -> None:
        broken = True
        sound = probed_server("modern")

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (BROKEN[what] if broken else sound)(seen, writer)

        async with serving(script) as (_, wire):
            with pytest.raises(UpstreamError):
                await wire.probe(2.0)
            broken = False
            ended, _ = await ask(wire, call(revision=MODERN))
            assert not (isinstance(ended, UpstreamError) and ended.fate is Fate.UNSUPPORTED)
            await wire.probe(2.0)

    on_loop(body)


def test_a_backend_with_a_fixed_revision_is_not_asked_for_its_era() -> None:
    async def body() -> None:
        async with serving(probed_server("both"), protocol=LEGACY) as (server, wire):
            await wire.probe(2.0)
            assert server.seen[0].method == "initialize"
            assert (await refused(wire, call(revision=MODERN))).fate is Fate.UNSUPPORTED

    on_loop(body)
