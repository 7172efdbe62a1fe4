"""Clients that do not read: what waits for them is counted and bounded, and they are cut off, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from tornado.iostream import IOStream

from mcp_gateway.config.settings import GatewaySettings
from mcp_gateway.transports.downstream.server.buffered_bytes import OUT, BufferedBytes
from mcp_gateway.transports.downstream.server.unsent_bytes import ADDRESS_SHARE, BUDGET, WRITE_TIMEOUT, UnsentBytes
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.patience import until

MB = 1_048_576
TIMEOUT_S = 30.0


class Peer:
    """A client with a small receive buffer, the gateway's end of its connection, and what is known of both."""

    def __init__(self, unsent: UnsentBytes, address: str) -> None:
        self._unsent = unsent
        self._address = address
        self.client = socket.socket()
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client.connect(listener.getsockname())
            accepted, _ = listener.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 65_536)
        self.client.setblocking(False)
        self.stream = IOStream(accepted)
        self.sent_count = 0

    @property
    def is_cut(self) -> bool:
        return self.stream.closed()

    def write(self, byte_count: int) -> None:
        self.stream.write(b"x" * byte_count)
        self._unsent.written(self.stream, self._address)
        self._unsent.when_sent(self.stream, self._sent)

    def _sent(self) -> None:
        self.sent_count += 1

    async def read(self, byte_count: int) -> None:
        async with asyncio.timeout(10):
            while byte_count > 0:
                byte_count -= len(await asyncio.get_running_loop().sock_recv(self.client, min(byte_count, 65_536)))

    def close(self) -> None:
        self.stream.close()
        self.client.close()


class Bench:
    """peers: of the test, closed after it."""

    def __init__(self, share: float, limit_bytes: int) -> None:
        gateway = GatewaySettings(max_buffered_bytes=limit_bytes, max_share_per_address=share, max_message_bytes=MB)
        self.buffered = BufferedBytes(gateway)
        self.unsent = UnsentBytes(self.buffered, TIMEOUT_S)
        self.peers: list[Peer] = []

    def peer(self, address: str = "a") -> Peer:
        self.peers.append(Peer(self.unsent, address))
        return self.peers[-1]

    @property
    def waiting_bytes(self) -> int:
        assert self.buffered.held[OUT] == self.buffered.budget.held
        return self.buffered.budget.held


def with_bench(body: Callable[[Bench], Awaitable[None]], share: float = 0.5, limit_bytes: int = 8 * MB) -> None:
    async def run() -> None:
        bench = Bench(share, limit_bytes)
        try:
            await body(bench)
        finally:
            for peer in bench.peers:
                peer.close()
            await until(lambda: bench.waiting_bytes == 0)  # however they ended, nothing is held

    asyncio.run(run())


def cut_count(reason: str) -> float:
    return float(metrics.clients_cut_total.labels(reason)._value.get())


def test_what_goes_out_at_once_is_never_counted() -> None:
    async def body(bench: Bench) -> None:
        peer = bench.peer()
        peer.write(1_000)
        assert (peer.sent_count, bench.waiting_bytes) == (1, 0)

    with_bench(body)


def test_bytes_are_held_until_they_have_left() -> None:
    async def body(bench: Bench) -> None:
        peer = bench.peer()
        peer.write(MB)
        assert 0 < bench.waiting_bytes < MB
        peer.write(MB)  # more, while the first waits
        held = bench.waiting_bytes
        assert held > MB
        await peer.read(MB // 2)
        await until(lambda: not bench.unsent.sweep(time.monotonic()) and bench.waiting_bytes < held)
        assert peer.sent_count == 0
        await peer.read(2 * MB - MB // 2)
        await until(lambda: peer.sent_count == 2)
        assert bench.waiting_bytes == 0
        assert not peer.is_cut
        peer.write(10)
        assert peer.sent_count == 3

    with_bench(body)


def test_a_client_that_leaves_holds_nothing_more() -> None:
    async def body(bench: Bench) -> None:
        peer = bench.peer()
        peer.stream.set_close_callback(lambda: None)  # as every connection has one: Tornado looks for its end
        peer.write(MB)
        peer.client.close()
        await until(lambda: peer.sent_count == 1)
        assert bench.waiting_bytes == 0

    with_bench(body)


def test_a_client_that_takes_nothing_in_time_is_cut_off_and_the_steady_one_goes_on() -> None:
    async def body(bench: Bench) -> None:
        silent, steady = bench.peer(), bench.peer()
        before = cut_count(WRITE_TIMEOUT)
        for peer in (silent, steady):
            peer.write(2 * MB)
        start_s = time.monotonic()
        await asyncio.sleep(0.2)  # what is in flight arrives
        bench.unsent.sweep(start_s)
        for turn in range(1, 5):  # far less than would make the system ask for more
            await steady.read(5_000)
            await asyncio.sleep(0.1)
            bench.unsent.sweep(start_s + turn * (TIMEOUT_S - 1) / 2)
        assert (silent.is_cut, steady.is_cut) == (True, False)
        assert cut_count(WRITE_TIMEOUT) == before + 1
        assert silent.sent_count == 1

    with_bench(body)


def test_just_before_the_deadline_nobody_is_cut_off_and_at_it_the_client_is() -> None:
    async def body(bench: Bench) -> None:
        peer = bench.peer()
        peer.write(2 * MB)
        await asyncio.sleep(0.2)
        start_s = time.monotonic()
        bench.unsent.sweep(start_s)
        progress_s = bench.unsent._waiting[peer.stream].progress_s
        bench.unsent.sweep(progress_s + TIMEOUT_S - 0.01)
        assert not peer.is_cut
        bench.unsent.sweep(progress_s + TIMEOUT_S)
        assert peer.is_cut

    with_bench(body)


def test_at_the_share_of_an_address_its_client_that_stalls_longest_is_cut_off_and_no_other() -> None:
    async def body(bench: Bench) -> None:  # a share of 4 MB
        before = cut_count(ADDRESS_SHARE)
        other = bench.peer("b")
        other.write(2 * MB)
        peers = [bench.peer() for _ in range(6)]
        for peer in peers[:4]:
            peer.write(MB)
            await asyncio.sleep(0.02)
        assert not any(peer.is_cut for peer in peers)  # less than a MB of each waits: the system holds the rest
        bench.unsent.sweep(time.monotonic())
        await peers[0].read(200_000)  # the first is slow, and reads
        peers[4].write(MB)
        await asyncio.sleep(0.02)
        peers[5].write(MB)
        assert sum(peer.is_cut for peer in peers[1:4]) == 2
        assert not any(peer.is_cut for peer in (other, peers[0], *peers[4:]))
        assert cut_count(ADDRESS_SHARE) == before + sum(peer.is_cut for peer in peers)
        assert bench.buffered.budget.held_by("a") <= 4 * MB

    with_bench(body)


def test_where_all_together_have_too_much_the_address_that_has_most_is_cut() -> None:
    async def body(bench: Bench) -> None:  # 4 MB in all
        before = cut_count(BUDGET)
        small, large = bench.peer("small"), [bench.peer("large") for _ in range(3)]
        small.write(MB)
        for peer in large:
            peer.write(MB)
            await asyncio.sleep(0.02)
        newest = bench.peer("newest")
        newest.write(600_000)
        assert sum(peer.is_cut for peer in large) == 1
        assert not small.is_cut
        assert not newest.is_cut
        assert cut_count(BUDGET) == before + 1

    with_bench(body, share=1.0, limit_bytes=4 * MB)


def test_an_answer_that_is_too_much_alone_ends_its_own_connection_only() -> None:
    async def body(bench: Bench) -> None:
        other, peer = bench.peer("b"), bench.peer()
        other.write(MB)
        peer.write(6 * MB)
        assert (peer.is_cut, peer.sent_count, other.is_cut) == (True, 1, False)

    with_bench(body)


def test_who_is_cut_off_is_reset_so_that_the_system_keeps_nothing_either() -> None:
    async def body(bench: Bench) -> None:
        peer = bench.peer()
        peer.write(6 * MB)
        with pytest.raises(ConnectionResetError):
            await peer.read(6 * MB)

    with_bench(body)
