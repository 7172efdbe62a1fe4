"""Two nodes and three NATS servers: what is left when one of the servers dies, when the majority does, and when they are back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_gateway.actors.cluster.engine import WrongRevision
from mcp_gateway.actors.cluster.nats_engine import NatsEngine
from tests.doubles.cluster_nodes import Nodes, running_nodes
from tests.doubles.gateway_process import DOUBLES, GatewayProcess, wait_until
from tests.doubles.nats_cluster import NatsCluster
from tests.doubles.phoenix_client import phoenix_client
from tests.doubles.topic_follower import TopicFollower
from tests.end_to_end.moving_session import Session

STDIO = f'[[backends]]\nname = "stdio"\ncommand = {json.dumps([sys.executable, str(DOUBLES / "odd_stdio_server.py")])}\n'
KEYS, LOG = "mcp-gateway-keys", "mcp-gateway-events"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("nats") / "nats") as running:
        yield running


@pytest.fixture
def nodes(tmp_path: Path, servers: NatsCluster) -> Iterator[Nodes]:
    async def begin_small() -> None:
        """As a cluster does that has one NATS server at first."""
        urls = tuple(servers.url.split(","))
        await (await NatsEngine.connect(urls, cluster="mcp-gateway", name="first", replicas=1)).close()

    asyncio.run(begin_small())
    with running_nodes(tmp_path, servers.url, STDIO, "a", "b", cells=1) as running:
        yield running


def publish(node: GatewayProcess, name: str, first: int, last: int) -> None:
    """Each is acknowledged before the next one."""

    async def push_all() -> None:
        async with phoenix_client(node.url) as client:
            await client.join("mcp:client.publisher")
            for number in range(first, last + 1):
                reply = await client.ask("j1", "mcp:client.publisher", "event", {"event": name, "data": {"n": number}})
                assert reply.status == "ok", reply

    asyncio.run(push_all())


def is_unreachable(session: Session, node: GatewayProcess) -> bool:
    answer = session.call(node, "pid")
    return answer.status == 503 and answer.body["error"]["data"]["reason"] == "owner_unreachable"


@pytest.mark.timeout(240)
def test_of_those_who_change_a_key_at_once_one_succeeds_and_the_others_are_told_that_it_has_changed(servers: NatsCluster) -> None:
    """While a change is on its way to the other servers, the one that orders them says so in another way than afterwards."""

    async def change_at_once() -> None:
        urls = tuple(servers.url.split(","))
        members = [await NatsEngine.connect(urls, cluster="keys", name=name, replicas=3) for name in ("one", "other")]
        revision = await members[0].create("key", b"")
        for _ in range(20):
            changes = [member.update("key", b"", revision) for member in members * 2]
            ended = await asyncio.gather(*changes, return_exceptions=True)
            (revision,) = [each for each in ended if isinstance(each, int)]
            assert [type(each) for each in ended if not isinstance(each, int)] == [WrongRevision] * 3
        for member in members:
            await member.close()

    asyncio.run(change_at_once())


@pytest.mark.timeout(240)
def test_with_one_nats_server_less_all_goes_on_without_the_majority_events_wait_and_then_none_is_lost(
    servers: NatsCluster, nodes: Nodes
) -> None:
    a, b = nodes.nodes["a"], nodes.nodes["b"]
    process = Session(a, "/mcp/servers/stdio")
    pid = process.text(b, "pid")
    with TopicFollower(a.url, "client.*") as at_a, TopicFollower(b.url, "client.*") as at_b:
        wait_until(lambda: at_a.connects and at_b.connects, 20, "both follow")

        def publish_at_both(first: int, last: int) -> None:
            publish(a, "of-a", first, last)
            publish(b, "of-b", first, last)

        def all_have(last: int) -> bool:
            numbers = list(range(1, last + 1))
            return all(each.seen(f"client.of-{name}") == numbers for each in (at_a, at_b) for name in ("a", "b"))

        publish_at_both(1, 3)
        wait_until(lambda: all_have(3), 30, "both nodes have all events")
        wait_until(lambda: servers.copies(KEYS) == servers.copies(LOG) == 3, 10, "each server has a copy")
        # 1. one server less, the one that orders the events: calls and events go on
        leader = servers.leader(LOG)
        servers.kill(leader)
        publish_at_both(4, 6)
        wait_until(lambda: all_have(6), 60, "events go on")
        wait_until(lambda: process.text(b, "pid") == pid, 30, "calls go on")
        # 2. and one more: as without an engine
        servers.kill(servers.others(leader)[0])
        publish_at_both(7, 9)
        for name in ("a", "b"):
            wait_until(lambda name=name: not nodes.status(name)["is_member"], 30, f"{name} has fenced itself")  # type: ignore[misc]
        wait_until(lambda: is_unreachable(process, b), 10, "what lives at node a is unreachable at node b")
        assert process.text(a, "pid") == pid
        opened = Session(b, "/mcp/servers/stdio")
        assert opened.text(b, "pid")
        assert not at_a.gaps
        assert all_have(6)
        # 3. they are back: the same process, and the events that waited, in one order, each once
        servers.start_missing()
        nodes.wait_until_all_see_all()
        wait_until(lambda: process.text(b, "pid") == pid, 30, "the process is spoken to from node b again")
        wait_until(lambda: all_have(9), 60, "the events that waited have come")
        assert [each.event_id for each in at_a.events] == sorted({each.event_id for each in at_a.events})
        assert at_a.events == at_b.events
        assert not at_a.gaps
        assert not at_b.gaps
