"""A wire whose transport is found out by asking: once for all who wait, and again only where nothing was found out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamConversation, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.upstream.bridge.either_transport import EitherConversation, EitherTransport
from tests.doubles.patience import on_loop

REQUEST = UpstreamRequest(kind=RequestKind.REQUEST, message=Request(b"1", "ping", b""), revision="2025-11-25", timeout_s=5)


class Wire:
    """A wire that counts. name: what it speaks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.probes = 0
        self.is_closed = False

    async def exchange(self, request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
        return UpstreamAnswer(200, None, self.name)

    async def probe(self, timeout_s: float) -> None:
        self.probes += 1

    async def close(self) -> None:
        self.is_closed = True


class Bench:
    """answers: what the server says, one for each question; an error is raised."""

    def __init__(self, *answers: bool | UpstreamError | None) -> None:
        self.answers = list(answers)
        self.wires: list[Wire] = []
        self.wire = EitherConversation(self._connect, self._speaks_sse)

    def _connect(self, is_sse: bool) -> UpstreamConversation:
        self.wires.append(Wire("sse" if is_sse else "http"))
        return self.wires[-1]

    async def _speaks_sse(self) -> bool | None:
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if isinstance(answer, UpstreamError):
            raise answer
        return answer

    async def spoken(self) -> str | None:
        return (await self.wire.exchange(REQUEST, None)).session_id  # type: ignore[arg-type]


@pytest.mark.parametrize(("is_sse", "name"), [(True, "sse"), (False, "http"), (None, "http")])
def test_all_who_wait_hear_of_one_choice(is_sse: bool | None, name: str) -> None:
    async def test() -> None:
        bench = Bench(is_sse)
        assert await asyncio.gather(*(bench.spoken() for _ in range(5))) == [name] * 5
        assert await bench.spoken() == name
        assert len(bench.wires) == 1

    on_loop(test)


def test_who_does_not_wait_any_longer_takes_the_choice_from_nobody() -> None:
    async def test() -> None:
        bench = Bench(True)
        waiting = [asyncio.ensure_future(bench.spoken()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        assert await waiting[1] == "sse"

    on_loop(test)


def test_a_choice_that_failed_is_tried_again() -> None:
    async def test() -> None:
        bench = Bench(UpstreamError(Fate.UNREACHABLE, "away"), True)
        with pytest.raises(UpstreamError, match="away"):
            await bench.wire.probe(1)
        assert bench.wires == []
        assert await bench.spoken() == "sse"

    on_loop(test)


def test_a_server_without_a_sign_is_asked_again_by_the_next_probe() -> None:
    """It may have had no routes yet when it was asked."""

    async def test() -> None:
        bench = Bench(None, None, True)
        assert await bench.spoken() == "http"
        await bench.wire.probe(1)
        assert await bench.spoken() == "http"
        await bench.wire.probe(1)
        assert await bench.spoken() == "sse"
        await bench.wire.probe(1)
        assert [(wire.name, wire.probes, wire.is_closed) for wire in bench.wires] == [("http", 1, True), ("sse", 2, False)]
        await bench.wire.close()
        assert bench.wires[1].is_closed

    on_loop(test)


def test_a_question_without_an_answer_ends_in_time() -> None:
    async def test() -> None:
        async def never() -> bool | None:
            await asyncio.sleep(60)
            return None

        wire = EitherConversation(lambda is_sse: Wire("http"), never)
        with pytest.raises(UpstreamError, match="in time"):
            await wire.probe(0.05)
        await wire.close()

    on_loop(test)


def test_the_transport_that_was_chosen_is_connected_with_the_backend_as_it_is() -> None:
    """The replica's name is that of the settings, also where other cells look for it."""

    async def test() -> None:
        asked: list[Any] = []

        class Transport:
            name, schemes = "t", frozenset({"x"})

            def __init__(self, name: str) -> None:
                self.name = name

            def connect(self, *arguments: Any) -> UpstreamConversation:
                asked.append((self.name, *arguments))
                return Wire(self.name)

        async def speaks_sse(url: str, headers: Any) -> bool:
            asked.append((url, headers))
            return True

        backend = BackendSettings(name="b", prefix="", replicas=["auto+http://h/sse"], headers={"X": "1"})
        either = EitherTransport(Transport("http"), Transport("sse"), speaks_sse)
        target = ReplicaTarget(backend, 0, 1000, 10)
        await either.connect(target).probe(1)
        assert asked == [("http://h/sse", {"X": "1"}), ("sse", target)]

    on_loop(test)
