"""Two nodes joined by a NATS server are one gateway: what was begun at one goes on at the other."""

from __future__ import annotations

import json
import sys
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doubles.cluster_nodes import Cluster, running_cluster
from tests.doubles.gateway_process import DOUBLES, GatewayProcess, wait_until
from tests.doubles.sdk_server import SdkServer
from tests.doubles.tcp_balancer import TcpBalancer
from tests.doubles.topic_follower import TopicFollower
from tests.end_to_end.moving_session import Session
from tests.end_to_end.python_client import connected, eventually, run, text_of


def backends(legacy_server: SdkServer, modern_server: SdkServer) -> str:
    stdio = json.dumps([sys.executable, str(DOUBLES / "odd_stdio_server.py")])
    return (
        f'[[backends]]\nname = "legacy"\nreplicas = ["{legacy_server.url}"]\n'
        f'[[backends]]\nname = "modern"\nreplicas = ["{modern_server.url}"]\n'
        f'[[backends]]\nname = "stdio"\ncommand = {stdio}\n'
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, legacy_server: SdkServer, modern_server: SdkServer) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder, backends(legacy_server, modern_server), "a", "b") as running:
        yield running


# ---- who is there


def test_every_node_tells_of_all_nodes(cluster: Cluster) -> None:
    for name in ("a", "b"):
        status = cluster.status(name)
        assert (status["node"], status["engine"]) == (name, "connected")
        assert [(row["name"], row["cells"]) for row in status["nodes"]] == [("a", 2), ("b", 2)]
    assert cluster.status("a")["nodes"][1]["epoch"] == cluster.status("b")["epoch"]


def test_health_tells_of_the_cluster_at_every_node(cluster: Cluster) -> None:
    for name, node in cluster.nodes.items():
        found = wait_until(lambda node=node: health(node).get("nodes") == 2 and health(node), 10, "health tells of both")  # type: ignore[misc]
        assert (found["status"], found["node"], found["engine"]) == ("healthy", name, "connected")
        assert found["revision"] > 0
        assert found["lease_age_seconds"] >= 0
        assert found["lag_events"] >= 0


def health(node: GatewayProcess) -> dict[str, Any]:
    component: dict[str, Any] = node.get("/health")["components"]["cluster"]
    return component


def test_a_part_of_any_node_is_named_with_its_node_and_without_one_it_is_of_the_node_that_is_asked(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    for child in ("a/cell/0/router", "cell/0/router", "b/cell/0/router"):
        assert a.command("restart", child).returncode == 0
    assert [node.rows()["b/cell/0/router" if node is b else "a/cell/0/router"]["incarnation"] for node in (a, b)] == [3, 2]
    pid = b.pid("cell/1")
    killed = a.command("kill", "b/cell/1")
    assert (killed.returncode, killed.stdout) == (0, "b/cell/1 killed\n")
    b.wait_for_another("cell/1", pid, 20)
    for child, text in (("b/cell/7", "there is no child 'cell/7'"), ("c/cell/0", "there is no child 'c/cell/0'")):
        done = a.command("restart", child)
        assert done.returncode == 1
        assert text in done.stderr
    assert "of the nodes a" in done.stderr
    cluster.wait_until_all_see_all()


# ---- what operators change


def names_of_backends(cluster: Cluster, node: str) -> set[str]:
    return {backend["name"] for backend in cluster.nodes[node].status()["backends"]}


def test_a_backend_that_is_added_or_removed_at_one_node_is_so_at_both_when_the_command_ends(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    before = names_of_backends(cluster, "a")
    done = a.command("add-backend", "more", "--builtin", "demo")
    assert (done.returncode, done.stdout) == (0, "more added\n"), done.stderr
    assert Session(b, "/mcp/servers/more").text(b, "echo", message="hello") == "hello"
    assert names_of_backends(cluster, "a") == names_of_backends(cluster, "b") == before | {"more"}
    assert a.command("add-backend", "more", "--builtin", "demo").returncode == 2
    done = b.command("remove-backend", "more")
    assert done.returncode == 0, done.stderr
    assert names_of_backends(cluster, "a") == names_of_backends(cluster, "b") == before


def test_a_file_that_is_read_again_at_one_node_is_followed_by_both(cluster: Cluster) -> None:
    b = cluster.nodes["b"]
    before = names_of_backends(cluster, "b")
    file = b.state_dir.with_suffix(".toml")
    text = file.read_text()
    file.write_text(f'{text}[[backends]]\nname = "read"\nbuiltin = "demo"\n')
    try:
        assert b.command("reload").returncode == 0
        assert names_of_backends(cluster, "a") == names_of_backends(cluster, "b") == before | {"read"}
    finally:
        file.write_text(text)
    assert b.command("reload").returncode == 0
    assert names_of_backends(cluster, "a") == names_of_backends(cluster, "b") == before


# ---- sessions


@pytest.mark.parametrize("endpoint", ["/mcp/servers/legacy", "/mcp/servers/modern"])
def test_a_session_is_served_at_either_node_and_its_end_at_one_is_its_end_at_both(cluster: Cluster, endpoint: str) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    session = Session(a, endpoint)
    assert [session.text(node, "echo", message="hello") for node in (a, b, b, a)] == ["hello"] * 4
    assert session.end(b) in (200, 204)
    assert [session.call(node, "echo", message="hello").status for node in (a, b)] == [404, 404]


def test_a_process_of_a_session_is_the_same_one_from_either_node(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    session = Session(a, "/mcp/servers/stdio")
    assert len({session.text(node, "pid") for node in (a, b, a, b)}) == 1
    large = session.text(b, "big", size_bytes=3_000_000)
    assert len(large) == 3_000_000
    session.end(a)


def test_a_client_of_the_sdk_is_moved_from_node_to_node_by_a_balancer_that_knows_nothing(cluster: Cluster) -> None:
    ports = {name: urllib.parse.urlsplit(node.url).port or 0 for name, node in cluster.nodes.items()}

    async def converse(balancer: TcpBalancer) -> None:
        async with connected(f"{balancer.url}/mcp", "legacy") as (client, record):
            for number in range(6):
                balancer.turn_to(ports["ab"[number % 2]])
                balancer.cut()
                assert text_of(await client.call_tool("legacy__echo", {"message": f"{number}"})) == f"{number}"
                assert text_of(await client.call_tool("modern__echo", {"message": f"{number}"})) == f"{number}"
            assert record.questions == []

    with TcpBalancer(ports.values()) as balancer:
        run(converse(balancer))


def test_a_modern_client_answers_at_one_node_what_a_call_at_the_other_one_asks(cluster: Cluster) -> None:
    """The call waits in a cell of the node where it began; each request of the client goes to the other node."""
    ports = [urllib.parse.urlsplit(node.url).port or 0 for node in cluster.nodes.values()]

    async def converse(balancer: TcpBalancer) -> None:
        async with connected(f"{balancer.url}/mcp/servers/legacy", "2026-07-28") as (client, record):
            for _ in range(4):
                balancer.cut()
                assert "Ada" in text_of(await client.call_tool("elicit", {}))
            await eventually(lambda: len(record.questions) == 4, 5.0, str(record))

    with TcpBalancer(ports) as balancer:
        run(converse(balancer))


# ---- topics


def drained(follower: TopicFollower) -> list[tuple[int, str, str]]:
    """(id, topic, node) of what was done to the backend "legacy"."""
    return [
        (event.event_id, event.topic, event.payload["node"])
        for event in follower.events
        if event.topic.startswith("mcp.backend.") and event.payload["backend"] == "legacy"
    ]


def test_followers_at_either_node_and_one_who_goes_from_node_to_node_see_one_order_of_all_events(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    ports = [urllib.parse.urlsplit(node.url).port or 0 for node in (a, b)]
    with (
        TcpBalancer(ports) as balancer,
        TopicFollower(a.url) as at_a,
        TopicFollower(b.url) as at_b,
        TopicFollower(balancer.url) as moving,
    ):
        wait_until(lambda: at_a.connects and at_b.connects and moving.connects, 10, "all follow")
        for number in range(4):
            node = (a, b)[number % 2]
            assert node.command("drain", "legacy").returncode == 0
            balancer.cut()
            assert node.command("undrain", "legacy").returncode == 0
        for follower in (at_a, at_b, moving):
            wait_until(lambda follower=follower: len(drained(follower)) == 8, 10, "all events have come")  # type: ignore[misc]
        assert [node for _, _, node in drained(at_a)] == ["a", "a", "b", "b"] * 2
        assert drained(at_a) == drained(at_b) == drained(moving)
        assert moving.connects > 2
        assert not moving.gaps
