"""Connections that bring no request: they end, and until then they keep nobody else out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from mcp_gateway.transports.downstream.server import accepting
from mcp_gateway.transports.downstream.server import server as server_module
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell

pytestmark = pytest.mark.usefixtures("each_http_parser")

HALF_A_HEAD = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
OTHER = "127.0.0.2"


@pytest.fixture(autouse=True)
def sweeps_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)


def reached(bound: str) -> float:
    return float(metrics.bounds_reached_total.labels(bound)._value.get())


@asynccontextmanager
async def connections(cell: RunningCell, count: int, address: str = "127.0.0.1") -> AsyncIterator[list[RawClient]]:
    """So many that have sent nothing, in the order in which the cell has taken them."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            before = waiting_count(cell)
            clients.append(await stack.enter_async_context(RawClient(cell, address)))
            async with asyncio.timeout(5):
                while waiting_count(cell) == before and not clients[0].reader.at_eof():
                    await asyncio.sleep(0.001)
        yield clients


def waiting_count(cell: RunningCell) -> int:
    return cell.cell._server._server.waiting_count


async def is_served(client: RawClient) -> bool:
    return (await client.ask("GET", "/health/live")).status == 200


# ---- time


def test_a_head_that_does_not_become_whole_is_answered_and_its_connection_closed() -> None:
    """Source: RFC 9110, section 15.5.9."""

    async def body(cell: RunningCell) -> None:
        before = reached("headers")
        async with RawClient(cell) as slow:
            slow.writer.write(HALF_A_HEAD)
            answer = await slow.answer()
            assert (answer.status, answer.reason, answer.headers["connection"]) == (408, "invalid_request", "close")
            assert await slow.is_closed()
        assert reached("headers") == before + 1
        assert waiting_count(cell) == 0

    on_cell(body, gateway={"header_timeout": 0.3})


def test_bytes_that_keep_coming_do_not_make_the_time_longer() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as slow:
            slow.writer.write(HALF_A_HEAD)
            closed = asyncio.ensure_future(slow.answer())
            while not closed.done():
                slow.writer.write(b"x")
                await asyncio.sleep(0.01)
            assert (await closed).status == 408

    on_cell(body, gateway={"header_timeout": 0.3})


def test_a_head_in_time_is_served_however_many_pieces_it_comes_in() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for piece in (b"\r\n", HALF_A_HEAD, b"a", b"b\r\n", b"\r"):
                client.writer.write(piece)
                await asyncio.sleep(0.02)
            client.writer.write(b"\n")
            assert (await client.answer()).status == 200

    on_cell(body)


def test_a_connection_that_brings_nothing_ends_without_a_word() -> None:
    """There may be a browser at its end, which keeps one ready."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as silent:
            assert await silent.is_closed()

    on_cell(body, gateway={"header_timeout": 0.3})


def test_a_client_that_has_had_an_answer_may_rest_and_then_has_the_same_time_for_its_next_head() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for _ in range(2):
                assert await is_served(client)
                await asyncio.sleep(0.6)
            client.writer.write(HALF_A_HEAD)
            assert (await client.answer()).status == 408
            assert await client.is_closed()

    on_cell(body, gateway={"header_timeout": 0.3})


def test_a_client_that_rests_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_IDLE_CONNECTION_S", 0.5)

    async def body(cell: RunningCell) -> None:
        before = reached("idle")
        async with RawClient(cell) as client:
            assert await is_served(client)
            assert await client.is_closed()
        assert reached("idle") == before + 1

    on_cell(body)


def test_a_request_that_is_in_flight_waits_for_nothing() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.start("GET", "/mcp/sse/events/all", 0)
            assert (await client.answer()).status == 200
            await asyncio.sleep(0.6)
            assert waiting_count(cell) == 0
            assert cell.cell._server.connection_counts()["http_sse"] == 1

    on_cell(body, gateway={"header_timeout": 0.2})


# ---- how many


def test_at_its_share_of_waiting_connections_an_address_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_MOST_WAITING", 40)

    async def body(cell: RunningCell) -> None:
        async with connections(cell, 10) as clients:
            for client in clients:
                assert await is_served(client)

    on_cell(body)


def test_past_its_share_an_address_loses_its_oldest_and_who_comes_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_MOST_WAITING", 40)

    async def body(cell: RunningCell) -> None:
        before = reached("waiting")
        async with RawClient(cell, OTHER) as other, RawClient(cell) as neighbour:
            assert await is_served(other)
            assert await is_served(neighbour)
            async with connections(cell, 9) as slow:
                assert reached("waiting") == before
                slow[0].writer.write(HALF_A_HEAD)
                async with asyncio.timeout(5):
                    while not any(each.has_begun for each in cell.cell._server._server._connections):
                        await asyncio.sleep(0.01)
                async with RawClient(cell) as user:
                    assert await is_served(user)
                    told = await slow[0].answer()
                    assert (told.status, told.reason, told.headers["retry-after"]) == (503, "too_many_connections", "1")
                    assert await slow[0].is_closed()
                    assert await is_served(neighbour)  # that has served: it would go last
            assert reached("waiting") == before + 1
            assert await is_served(other)

    on_cell(body)


def test_each_connection_of_a_trusted_proxy_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_MOST_WAITING", 20)

    async def body(cell: RunningCell) -> None:
        async with connections(cell, 20) as clients:
            for client in clients:
                assert await is_served(client)

    on_cell(body, gateway={"trusted_proxies": ["127.0.0.1"]})


# ---- descriptors


def leave_descriptors(cell: RunningCell, count: int) -> None:
    """Have the cell get so many more from now on; each client of a test takes two."""
    lowest = os.dup(0)
    os.close(lowest)
    cell.cell._server._server._most = lowest + count


def test_connections_that_bring_nothing_do_not_use_up_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_ON_ITS_WAY_S", 0.0)

    async def body(cell: RunningCell) -> None:
        leave_descriptors(cell, 80)
        before = reached("descriptors")
        async with AsyncExitStack() as stack:
            for index in range(80):
                await stack.enter_async_context(RawClient(cell, f"127.0.1.{index}"))
            async with RawClient(cell, OTHER) as user:
                assert await is_served(user)
        assert reached("descriptors") > before

    on_cell(body)


def test_where_every_connection_is_in_use_a_new_one_is_refused() -> None:
    async def body(cell: RunningCell) -> None:
        leave_descriptors(cell, 60)
        async with AsyncExitStack() as stack:
            answers: list[Any] = []
            while len(answers) < 60 and (not answers or answers[-1].status == 200):
                client = await stack.enter_async_context(RawClient(cell))
                client.start("GET", "/mcp/sse/events/all", 0)
                answers.append(await client.answer())
            assert (answers[-1].status, answers[-1].reason) == (503, "too_many_connections")
            assert len(answers) > 5

    on_cell(body, gateway={"max_share_per_address": 1.0})
