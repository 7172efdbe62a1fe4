"""What a cluster does when its engine is away, or a node, or a process of one dies: each row of the table in README is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.doubles.cluster_nodes import Cluster, cluster_key, node_settings, running_cluster
from tests.doubles.gateway_process import DOUBLES, GatewayProcess, wait_until
from tests.doubles.nats_server import NatsServer
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.moving_session import Session

STDIO = f'[[backends]]\nname = "stdio"\ncommand = {json.dumps([sys.executable, str(DOUBLES / "odd_stdio_server.py")])}\n'
AWAY_S = 12.0
"""Longer than a presence lives: the nodes have fenced themselves."""


@pytest.fixture
def cluster(tmp_path: Path, legacy_server: SdkServer) -> Iterator[Cluster]:
    rest = f'[[backends]]\nname = "legacy"\nreplicas = ["{legacy_server.url}"]\n{STDIO}'
    with running_cluster(tmp_path, rest, "a", "b", cells=1) as running:
        yield running


def is_unreachable(session: Session, node: GatewayProcess) -> bool:
    answer = session.call(node, "pid")
    if answer.status != 503:
        return False
    assert answer.body["error"]["code"] == 5034
    assert answer.body["error"]["data"]["reason"] == "owner_unreachable"
    assert int(answer.headers["Retry-After"]) >= 1
    return True


@pytest.mark.timeout(240)
def test_while_the_engine_is_away_everything_goes_on_but_what_lives_on_another_node(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    stateless, process = Session(a, "/mcp/servers/legacy"), Session(a, "/mcp/servers/stdio")
    pid = process.text(b, "pid")

    def check_what_goes_on() -> None:
        for node in (a, b):
            assert stateless.text(node, "echo", message="hello") == "hello"
            opened = Session(node, "/mcp/servers/stdio")
            assert opened.text(node, "pid")
            assert opened.end(node) in (200, 204)
        assert process.text(a, "pid") == pid

    cluster.nats.kill()
    wait_until(lambda: is_unreachable(process, b), 10, "what lives at node a is unreachable at node b")
    check_what_goes_on()
    wait_until(lambda: not cluster.status("a")["is_member"], 20, "node a has fenced itself")
    wait_until(lambda: not cluster.status("b")["is_member"], 20, "node b has fenced itself")
    assert cluster.status("b")["engine"] == "away"
    assert is_unreachable(process, b)  # and does not start the process once more
    check_what_goes_on()
    cluster.nats.start()
    cluster.wait_until_all_see_all()
    wait_until(lambda: process.text(b, "pid") == pid, 10, "the process is spoken to from node b again")


@pytest.mark.timeout(240)
def test_a_session_whose_node_has_died_goes_on_at_the_other_one_in_a_process_of_its_own(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    stateless, process = Session(a, "/mcp/servers/legacy"), Session(a, "/mcp/servers/stdio")
    pid = process.text(b, "pid")
    for each in a.note_processes():
        if not each.is_running() or each.name() == "nats-server":
            continue
        each.kill()
    assert stateless.text(b, "echo", message="hello") == "hello"
    wait_until(lambda: cluster.sees("b", set()), 20, "node b misses node a")
    other = process.text(b, "pid")
    assert other != pid
    assert process.text(b, "pid") == other
    assert not psutil.pid_exists(int(pid))


@pytest.mark.timeout(240)
def test_a_member_process_that_is_killed_is_started_again_and_the_node_is_found_under_another_epoch(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    process = Session(a, "/mcp/servers/stdio")
    pid = process.text(b, "pid")
    epoch = cluster.status("a")["epoch"]
    assert a.command("kill", "cluster-member").returncode == 0
    wait_until(lambda: cluster.status("a")["epoch"] > epoch, 20, "node a is a member again")
    wait_until(lambda: process.text(b, "pid") == pid, 20, "the process that has gone on is found")


@pytest.mark.timeout(240)
def test_a_node_that_is_stopped_in_order_is_missed_at_once_and_may_come_back_under_its_name(cluster: Cluster) -> None:
    assert cluster.nodes["a"].end() == 0
    wait_until(lambda: cluster.sees("b", set()), 3, "node b knows that node a has gone")


@pytest.mark.timeout(240)
def test_a_node_starts_and_serves_without_its_engine_and_joins_when_that_comes(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    settings = node_settings(server.url, "a", cluster_key(tmp_path), STDIO, cells=1)
    with GatewayProcess(tmp_path / "a", cell_factory=None, settings=settings) as node:
        session = Session(node, "/mcp/servers/stdio")
        assert session.text(node, "pid")
        assert not node.status()["cluster"]["is_member"]
        with server:
            wait_until(lambda: node.status()["cluster"]["is_member"], 20, "the node is a member")
            assert session.text(node, "pid")
