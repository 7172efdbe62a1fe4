"""Nodes that claim the same things, on the engine in memory and on a real NATS server; what they write of it is judged."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import pytest

from mcp_gateway.actors.cluster.engine import Engine
from mcp_gateway.actors.cluster.membership import Presence, encoded, presence_key, read_presence
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.nats_engine import NatsEngine
from mcp_gateway.actors.cluster.owner_claims import TAKE_OVER_AFTER_S, OwnerClaims
from mcp_gateway.actors.cluster.ownership import Standing, owner_key
from mcp_gateway.actors.cluster.record_format import FORMAT
from mcp_gateway.actors.messages.cluster import Ownership
from mcp_gateway.scripts.chaos_harness.ownership_history import broken_promises, read_history
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from tests.doubles.nats_server import NatsServer
from tests.doubles.patience import patience

SOON_S = 20.0
Engines = Callable[[], AbstractAsyncContextManager[list[Engine]]]


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats") / "data") as server:
        yield server


@pytest.fixture(params=["memory", "nats"])
def engines(request: pytest.FixtureRequest) -> Engines:
    """Makes three members' connections to one new cluster."""

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[list[Engine]]:
        hub = MemoryHub()
        yield [MemoryEngine(hub) for _ in range(3)]

    @asynccontextmanager
    async def on_nats() -> AsyncIterator[list[Engine]]:
        url, cluster = request.getfixturevalue("nats_server").url, f"test-{uuid.uuid4().hex}"
        made = [await NatsEngine.connect((url,), cluster=cluster, name=name) for name in "abc"]
        yield [*made]
        for engine in made:
            await engine.close()

    if request.param == "nats":
        request.getfixturevalue("nats_server")  # before the loop runs
    return in_memory if request.param == "memory" else on_nats


class Node:
    """A node that is there for good, or until its presence is taken away. Implements `ClaimSite`."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.standing = Standing(name, 0)
        self.may_create_s = 0.0
        self.unread: frozenset[str] = frozenset()
        self.claims = OwnerClaims(engine, self)
        self.told = 0

    def owners_changed(self) -> None:
        self.told += 1

    async def join(self) -> None:
        presence = Presence(node=self.name, epoch=0, incarnation=self.name)
        term = await self.engine.create(presence_key(self.name), encoded(presence))
        self.standing = Standing(self.name, term)
        self.running = asyncio.create_task(self.claims.run())

    async def vanish(self) -> None:
        """Its presence ends, and it does nothing any more."""
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.engine.delete(presence_key(self.name), self.standing.term)

    async def owners(self) -> dict[str, Ownership]:
        presences = []
        for name in "abc":
            if (found := await self.engine.get(presence_key(name))) is not None and found.value is not None:
                presence = read_presence(found.value, found.revision)
                assert presence is not None
                presences.append(presence)
        return self.claims.owners(presences)


def run(engines: Engines, body: Callable[[list[Node]], Awaitable[None]]) -> None:
    async def test() -> None:
        async with patience(), engines() as made:
            nodes = [Node(name, engine) for name, engine in zip("abc", made, strict=True)]
            for node in nodes:
                await node.join()
            await body(nodes)
            for node in nodes:
                node.running.cancel()

    asyncio.run(test())


async def all_know(nodes: list[Node], things: set[str]) -> dict[str, Ownership]:
    """What all nodes say of the owners, as soon as they agree on all of these things."""
    async with asyncio.timeout(SOON_S):
        while True:
            told = [await node.owners() for node in nodes]
            if told[0].keys() == things and all(each == told[0] for each in told):
                return told[0]
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def history(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What the nodes of each test have written keeps the promise."""
    caplog.set_level(logging.INFO)
    yield
    assert broken_promises(read_history(caplog.messages)) == []


def test_of_all_that_want_a_thing_at_one_time_one_gets_it(engines: Engines, caplog: pytest.LogCaptureFixture) -> None:
    things = {f"thing-{number}/stdio:x#0" for number in range(10)}

    async def test(nodes: list[Node]) -> None:
        for thing in things:
            for node in nodes:
                node.claims.want(thing)
        owners = await all_know(nodes, things)
        acquired = [record for record in read_history(caplog.messages) if record["event"] == "acquired"]
        assert {(each["thing"], each["node"], each["fence"]) for each in acquired} == {
            (thing, owner.node, owner.token) for thing, owner in owners.items()
        }
        assert len(acquired) == len(things)

    run(engines, test)


@pytest.mark.parametrize("newer", ["record", "presence"])
def test_what_a_newer_version_says_of_an_owner_is_left_alone(
    engines: Engines, newer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that cannot read who owns a thing must not take it for free."""
    form = {"format": FORMAT + 1}

    async def test(nodes: list[Node]) -> None:
        a, _, c = nodes
        if newer == "record":
            key, value = owner_key("thing"), msgspec.msgpack.encode(form)
            await a.engine.create(key, value)
        else:
            c.claims.want("thing")
            await all_know(nodes, {"thing"})
            key, value = presence_key("c"), msgspec.msgpack.encode({**msgspec.to_builtins(Presence("c", 0, "c")), **form})
            await c.engine.update(key, value, c.standing.term)
        a.claims.want("thing")
        async with asyncio.timeout(SOON_S):
            while not any("thing is left alone" in message for message in caplog.messages):
                await asyncio.sleep(0.02)
        acquired = [record["node"] for record in read_history(caplog.messages) if record["event"] == "acquired"]
        assert acquired == ([] if newer == "record" else ["c"])
        found = await a.engine.get(key)
        assert found is not None
        assert found.value == value

    run(engines, test)


@pytest.mark.parametrize("unreadable", ["record", "presence"])
def test_what_may_be_that_of_a_node_with_another_key_is_left_alone_as_long_as_that_is_there(
    engines: Engines, unreadable: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Two nodes that cannot read each other must not take from each other what both run then."""

    async def test(nodes: list[Node]) -> None:
        a, _, c = nodes
        if unreadable == "record":
            await c.engine.create(owner_key("thing"), b"")
        else:
            c.claims.want("thing")
            await all_know(nodes, {"thing"})
            await c.engine.update(presence_key("c"), b"", c.standing.term)
        before = await a.engine.get(owner_key("thing"))
        a.unread = frozenset("c")
        a.claims.want("thing")
        async with asyncio.timeout(SOON_S):
            while not any("thing is left alone" in message for message in caplog.messages):
                await asyncio.sleep(0.02)
        assert await a.engine.get(owner_key("thing")) == before
        # Of another node than the owner, where it can be read who that is.
        a.unread = frozenset("b" if unreadable == "presence" else "")
        a.claims.want("thing")
        async with asyncio.timeout(SOON_S):
            while (await a.engine.get(owner_key("thing"))) == before:
                await asyncio.sleep(0.02)
        acquired = [record["node"] for record in read_history(caplog.messages) if record["event"] == "acquired"]
        assert acquired[-1] == "a"

    run(engines, test)


def test_what_a_node_that_vanished_had_is_taken_over_by_one_of_the_others_with_a_higher_token(engines: Engines) -> None:
    async def test(nodes: list[Node]) -> None:
        a, *others = nodes
        a.claims.want("thing")
        token = (await all_know(nodes, {"thing"}))["thing"].token
        for node in others:
            node.claims.want("thing")
        assert (await all_know(nodes, {"thing"}))["thing"] == Ownership("a", token)
        await a.vanish()
        began_s = lease_clock_s()
        for node in others:
            node.claims.want("thing")
        owner = (await all_know(others, {"thing"}))["thing"]
        assert owner.node in ("b", "c")
        assert owner.token > token
        assert lease_clock_s() - began_s >= TAKE_OVER_AFTER_S

    run(engines, test)


def test_what_a_node_lets_go_of_is_nobodys_and_anybody_may_have_it_at_once(engines: Engines) -> None:
    async def test(nodes: list[Node]) -> None:
        a, b, _ = nodes
        a.claims.want("thing")
        token = (await all_know(nodes, {"thing"}))["thing"].token
        await a.claims.release()
        await all_know(nodes, set())
        b.claims.want("thing")
        owner = (await all_know(nodes, {"thing"}))["thing"]
        assert (owner.node, owner.token > token) == ("b", True)

    run(engines, test)


def test_a_node_makes_no_records_while_those_of_others_may_have_been_lost(engines: Engines) -> None:
    async def test(nodes: list[Node]) -> None:
        a, b, _ = nodes
        a.may_create_s = lease_clock_s() + 3_600
        a.claims.want("thing")
        b.claims.want("thing")
        assert (await all_know(nodes, {"thing"}))["thing"].node == "b"

    run(engines, test)
