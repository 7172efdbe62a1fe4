"""The contract of engines: every test runs on the engine in memory and on a real NATS server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from mcp_gateway.actors.cluster.engine import (
    LOG_PAGE,
    MAX_PAYLOAD_BYTES,
    Engine,
    EngineAway,
    Entry,
    LogEntry,
    NoResponders,
    WrongRevision,
)
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.nats_engine import NatsEngine
from tests.doubles.nats_server import NatsServer

RETENTION = 300
SOON_S = 10.0


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats") / "data") as server:
        yield server


Members = Callable[[], AbstractAsyncContextManager[tuple[Engine, Engine]]]


@pytest.fixture(params=["memory", "nats"])
def members(request: pytest.FixtureRequest) -> Members:
    """Makes two members of one new cluster."""

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[tuple[Engine, Engine]]:
        hub = MemoryHub(retention=RETENTION)
        yield MemoryEngine(hub), MemoryEngine(hub)

    @asynccontextmanager
    async def on_nats() -> AsyncIterator[tuple[Engine, Engine]]:
        url = request.getfixturevalue("nats_server").url
        cluster = f"test-{uuid.uuid4().hex}"
        one, other = [
            await NatsEngine.connect((url,), cluster=cluster, name=name, retention=RETENTION) for name in ("one", "other")
        ]
        yield one, other
        await one.close()
        await other.close()

    if request.param == "nats":
        request.getfixturevalue("nats_server")  # before the loop runs
    return in_memory if request.param == "memory" else on_nats


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test, 60)

    asyncio.run(bounded())


# ---- messages


def test_a_request_is_answered_by_whoever_serves_its_subject(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):

            async def answer(payload: bytes) -> bytes:
                return payload[::-1]

            stop = await other.serve("req.b", answer)
            assert await one.request("req.b", b"abc", 5.0) == b"cba"
            answers = await asyncio.gather(*(one.request("req.b", b"%d!" % number, 5.0) for number in range(50)))
            assert answers == [(b"%d!" % number)[::-1] for number in range(50)]
            await stop()

    run(test())


def test_that_nobody_serves_a_subject_is_known_at_once(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            began_s = asyncio.get_running_loop().time()
            with pytest.raises(NoResponders):
                await one.request("req.nobody", b"", 30.0)

            async def answer(payload: bytes) -> bytes:
                return payload

            stop = await other.serve("req.b", answer)
            await stop()
            await asyncio.sleep(0)
            with pytest.raises(NoResponders):
                while True:  # the server hears of it a moment later
                    await one.request("req.b", b"", 30.0)
            assert asyncio.get_running_loop().time() - began_s < SOON_S

    run(test())


def test_an_answer_that_fails_or_does_not_come_is_an_engine_that_is_away(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):

            async def answer(payload: bytes) -> bytes:
                if payload == b"late":
                    await asyncio.sleep(60)
                raise RuntimeError("a defect")

            await other.serve("req.b", answer)
            for payload in (b"late", b"fails"):
                with pytest.raises(EngineAway):
                    await one.request("req.b", payload, 0.2)

    run(test())


def test_what_is_published_reaches_all_who_subscribe(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            taken: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
            for name, member in (("one", one), ("other", other)):
                await member.subscribe("told.all", lambda payload, name=name: taken.put_nowait((name, payload)))  # type: ignore[misc]
            await one.publish("told.all", b"news")
            found = {await asyncio.wait_for(taken.get(), SOON_S) for _ in range(2)}
            assert found == {("one", b"news"), ("other", b"news")}

    run(test())


def test_a_payload_of_the_largest_size_passes_and_one_byte_more_is_refused(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):

            async def answer(payload: bytes) -> bytes:
                return payload

            await other.serve("req.b", answer)
            largest = b"x" * MAX_PAYLOAD_BYTES
            assert await one.request("req.b", largest, 10.0) == largest
            await one.create("key.large", largest)
            await one.append("source", 1, largest)
            for attempt in (
                one.request("req.b", largest + b"x", 10.0),
                one.publish("req.b", largest + b"x"),
                one.create("key.larger", largest + b"x"),
                one.append("source", 2, largest + b"x"),
            ):
                with pytest.raises(ValueError, match="bytes"):
                    await attempt

    run(test())


# ---- keys


def test_of_two_who_create_a_key_one_succeeds(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):

            async def create(member: Engine) -> int | None:
                try:
                    return await member.create("own.a", b"")
                except WrongRevision:
                    return None

            revisions = await asyncio.gather(*(create(member) for member in (one, other) * 5))
            assert sum(revision is not None for revision in revisions) == 1

    run(test())


def test_a_key_is_changed_and_deleted_only_at_the_revision_that_it_has(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            assert await one.get("own.a") is None
            first = await one.create("own.a", b"1")
            second = await other.update("own.a", b"2", first)
            assert second > first
            with pytest.raises(WrongRevision):
                await one.update("own.a", b"3", first)
            with pytest.raises(WrongRevision):
                await one.delete("own.a", first)
            assert await one.get("own.a") == Entry("own.a", second, b"2")
            await one.delete("own.a", second)
            assert await other.get("own.a") is None
            with pytest.raises(WrongRevision):
                await other.update("own.a", b"4", second)
            third = await other.create("own.a", b"5")
            assert third > second

    run(test())


def test_a_key_that_is_not_renewed_ends_and_may_be_made_again_with_a_higher_revision(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            first = await one.create("node.a", b"1", ttl_s=1)
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            while loop.time() - began_s < 2.5:
                first = await one.update("node.a", b"1", first, ttl_s=1)
                await asyncio.sleep(0.2)
            assert await other.get("node.a") is not None
            while await other.get("node.a") is not None:
                assert loop.time() - began_s < 2.5 + SOON_S
                await asyncio.sleep(0.05)
            with pytest.raises(WrongRevision):
                await one.update("node.a", b"1", first, ttl_s=1)
            assert await one.create("node.a", b"2", ttl_s=1) > first

    run(test())


def test_a_watch_tells_what_is_there_then_every_change_the_end_of_a_life_too(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            await one.create("node.a", b"1")
            await one.create("elsewhere.a", b"1")
            told: asyncio.Queue[tuple[Entry, ...]] = asyncio.Queue()

            async def watch() -> None:
                async for group in other.watch("node."):
                    told.put_nowait(group)

            task = asyncio.create_task(watch())
            (there,) = await asyncio.wait_for(told.get(), SOON_S)
            assert (there.key, there.value) == ("node.a", b"1")
            await one.create("node.b", b"2", ttl_s=1)
            found = [(entry.key, entry.value) for entry in await asyncio.wait_for(told.get(), SOON_S)]
            found += [(entry.key, entry.value) for entry in await asyncio.wait_for(told.get(), SOON_S)]
            assert found == [("node.b", b"2"), ("node.b", None)]
            await one.delete("node.a", there.revision)
            assert [(entry.key, entry.value) for entry in await asyncio.wait_for(told.get(), SOON_S)] == [("node.a", None)]
            task.cancel()

    run(test())


def test_a_watch_tells_also_that_a_key_lives_longer_but_need_not_at_once(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            watched = other.watch("node.")
            assert await anext(watched) == ()
            revision = await one.create("node.a", b"a", 60)
            assert await anext(watched) == (Entry("node.a", revision, b"a"),)
            for _ in range(3):
                revision = await one.update("node.a", b"a", revision, 60, False)
            async with asyncio.timeout(SOON_S):
                while (await anext(watched))[-1] != Entry("node.a", revision, b"a"):
                    continue

    run(test())


def test_on_nats_those_who_watch_are_called_where_there_is_news_and_not_where_a_key_lives_longer(
    nats_server: NatsServer,
) -> None:
    """Else every node of a large cluster would read at every renewal of each."""

    async def test() -> None:
        cluster = f"test-{uuid.uuid4().hex}"
        engine = await NatsEngine.connect((nats_server.url,), cluster=cluster, name="one")
        called: list[str] = []

        async def take(message: Msg) -> None:
            called.append(message.subject.removeprefix(f"{cluster}.h."))

        await engine._client.subscribe(f"{cluster}.h.>", cb=take)
        revision = await engine.create("node.a", b"a")
        for is_news in (False, True, False):
            revision = await engine.update("node.a", b"a", revision, None, is_news)
        await engine.delete("node.a", revision)
        await engine.create("node.last", b"")
        async with asyncio.timeout(SOON_S):
            while "node.last" not in called:
                await asyncio.sleep(0.01)
        assert called == ["node.a", "node.a", "node.a", "node.last"]
        await engine.close()

    run(test())


def test_a_watch_of_nothing_says_at_first_that_there_is_nothing(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, _):
            watch = one.watch("node.")
            assert await asyncio.wait_for(anext(watch), SOON_S) == ()
            await watch.aclose()  # type: ignore[attr-defined]

    run(test())


# ---- the log


def test_the_log_has_one_order_and_everyone_reads_it_from_anywhere(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            assert (await one.read_log(0)).last_sequence == 0

            async def append(member: Engine, source: str) -> None:
                for number in range(1, 11):
                    await member.append(source, number, f"{source}{number}".encode())

            await asyncio.gather(append(one, "a"), append(other, "b"))
            page = await one.read_log(0)
            assert page == await other.read_log(0)
            assert [entry.sequence for entry in page.entries] == [*range(1, 21)]
            assert [entry.number for entry in page.entries if entry.source == "a"] == [*range(1, 11)]
            assert (page.first_sequence, page.last_sequence) == (1, 20)
            assert (await other.read_log(15)).entries == page.entries[15:]
            assert (await other.read_log(20)).entries == ()

    run(test())


def test_what_is_appended_again_is_in_the_log_once(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            for number in (1, 2, 2, 1, 3):
                await one.append("a", number, b"%d" % number)
            for number in (2, 3, 4):  # whoever goes on for the same source, with what may have been appended before
                await other.append("a", number, b"%d" % number)
            await one.append("a", 4, b"4")
            await one.append("a", 5, b"5")
            assert [(entry.number, entry.data) for entry in (await one.read_log(0)).entries] == [
                (number, b"%d" % number) for number in range(1, 6)
            ]

    run(test())


def test_a_log_keeps_its_newest_entries_and_says_where_they_begin(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            for number in range(1, RETENTION + 6):
                await one.append("a", number, b"")
            page = await other.read_log(0)
            assert page.first_sequence == 6
            assert page.last_sequence == RETENTION + 5
            assert page.entries[0] == LogEntry(6, "a", 6, b"")
            assert len(page.entries) == LOG_PAGE
            rest = await other.read_log(page.entries[-1].sequence)
            assert [entry.sequence for entry in rest.entries] == [*range(6 + LOG_PAGE, RETENTION + 6)]

    run(test())


def test_who_waits_for_news_of_the_log_is_woken_by_it(members: Members) -> None:
    async def test() -> None:
        async with members() as (one, other):
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await other.log_news(0, 0.2)
            assert loop.time() - began_s >= 0.2
            waiting = asyncio.create_task(other.log_news(0, 60.0))
            await asyncio.sleep(0)
            await one.append("a", 1, b"")
            await asyncio.wait_for(waiting, SOON_S)
            await asyncio.wait_for(other.log_news(0, 60.0), SOON_S)

    run(test())


# ---- an engine that is away


def test_a_member_that_is_cut_off_is_told_so_by_everything_it_asks() -> None:
    async def test() -> None:
        hub = MemoryHub()
        one, other = MemoryEngine(hub), MemoryEngine(hub)
        hub.cut_off.add(one)
        assert not one.is_connected
        for attempt in (one.get("a"), one.create("a", b""), one.append("a", 1, b""), one.request("a", b"", 1.0), one.read_log(0)):
            with pytest.raises(EngineAway):
                await attempt
        assert other.is_connected
        assert await other.get("a") is None

    run(test())


def test_a_nats_server_that_starts_again_finds_members_and_watches_where_they_were(tmp_path: Path) -> None:
    async def test() -> None:
        with NatsServer(tmp_path / "data") as server:
            one = await NatsEngine.connect((server.url,), cluster="again", name="one")
            told: asyncio.Queue[tuple[Entry, ...]] = asyncio.Queue()

            async def watch() -> None:
                async for group in one.watch("node."):
                    told.put_nowait(group)

            task = asyncio.create_task(watch())
            assert await asyncio.wait_for(told.get(), SOON_S) == ()
            await one.append("a", 1, b"1")
            server.kill()
            with pytest.raises(EngineAway):
                while True:
                    await one.append("a", 2, b"2")
            with pytest.raises(EngineAway):
                await one.get("node.a")
            server.start()
            while not one.is_connected:
                await asyncio.sleep(0.05)
            while True:
                try:
                    await one.append("a", 2, b"2")
                    await one.create("node.a", b"")
                    break
                except EngineAway:  # JetStream needs a moment more than the server
                    await asyncio.sleep(0.1)
            assert [entry.key for entry in await asyncio.wait_for(told.get(), SOON_S)] == ["node.a"]
            page = await one.read_log(0)
            assert [entry.data for entry in page.entries] == [b"1", b"2"]
            task.cancel()
            await one.close()

    run(test())


def test_a_nats_server_that_has_lost_everything_is_told_as_keys_that_are_gone_and_a_shorter_log(tmp_path: Path) -> None:
    async def test() -> None:
        with NatsServer(tmp_path / "data") as server:
            one = await NatsEngine.connect((server.url,), cluster="lost", name="one")
            for number in range(1, 4):
                await one.append("a", number, b"")
            await one.create("node.a", b"")
            told: asyncio.Queue[tuple[Entry, ...]] = asyncio.Queue()

            async def watch() -> None:
                async for group in one.watch("node."):
                    told.put_nowait(group)

            task = asyncio.create_task(watch())
            await asyncio.wait_for(told.get(), SOON_S)
            server.kill()
            server.folder = tmp_path / "other"
            server.start()
            while True:
                try:
                    fresh = await NatsEngine.connect((server.url,), cluster="lost", name="other")
                    break
                except EngineAway:
                    await asyncio.sleep(0.1)
            assert (await asyncio.wait_for(told.get(), SOON_S))[0].value is None
            page = await fresh.read_log(3)
            assert (page.entries, page.last_sequence) == ((), 0)
            await one.append("a", 4, b"")
            assert [entry.number for entry in (await fresh.read_log(0)).entries] == [4]
            task.cancel()
            await one.close()
            await fresh.close()

    run(test())


def test_a_nats_server_that_is_not_there_is_an_engine_that_is_away() -> None:
    async def test() -> None:
        with pytest.raises(EngineAway):
            await NatsEngine.connect(("nats://127.0.0.1:1",), cluster="none", name="one")

    run(test())


def test_nats_servers_of_which_too_few_are_there_to_make_the_streams_anew_are_an_engine_that_is_away(tmp_path: Path) -> None:
    """Three that have lost their data come back one after the other."""

    async def test() -> None:
        with NatsServer(tmp_path / "data") as server:
            client = Client()
            await client.connect(server.url)
            engine = NatsEngine(client, "too-few", replicas=3)
            with pytest.raises(EngineAway):
                await engine.read_log(0)
            await engine.close()

    run(test())
