"""A server that two nodes run once: taken over when its owner is gone and not before, and left by one that comes back late."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcp_gateway.scripts.chaos_harness.ownership_history import broken_promises, read_history
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from tests.doubles.cluster_nodes import Cluster, running_cluster
from tests.doubles.gateway_process import DOUBLES, GatewayProcess, is_gone, wait_until
from tests.end_to_end.moving_session import Session

COMMAND = json.dumps([sys.executable, str(DOUBLES / "odd_stdio_server.py")])
ONCE = f'[[backends]]\nname = "once"\nprefix = ""\ncommand = {COMMAND}\none_per_cluster = true\n'


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, ONCE, "a", "b", cells=1) as running:
        yield running


def pid_told(node: GatewayProcess) -> str:
    """By the server's process, as a client of this node finds it; "" where it is refused because its owner cannot be reached."""
    session = Session(node, "/mcp/servers/once")
    answer = session.call(node, "pid")
    if answer.status == 503:
        assert answer.body["error"]["data"]["reason"] == "owner_unreachable"
        return ""
    assert answer.status == 200, answer.body
    return str(answer.body["result"]["content"][0]["text"])


def owner(cluster: Cluster, node: str, after: int = 0) -> tuple[str, int]:
    """(node, token), as soon as this node tells of an owner with a higher token: it describes itself every second."""

    def told() -> list[tuple[str, int]]:
        return [(row["node"], row["token"]) for row in cluster.status(node)["owned"] if row["token"] > after]

    (found,) = wait_until(told, 20, f"node {node} tells of an owner")
    return found


@pytest.mark.timeout(240)
def test_one_process_runs_in_the_cluster_whatever_becomes_of_its_owner(cluster: Cluster) -> None:
    nodes = cluster.nodes
    # 1. both nodes speak to one process
    pid = wait_until(lambda: pid_told(nodes["a"]), 20, "the server runs")
    assert pid_told(nodes["b"]) == pid
    first, token = owner(cluster, "a")
    environment = json.loads(Session(nodes["b"], "/mcp/servers/once").text(nodes["b"], "environment"))
    assert environment["MCP_GATEWAY_FENCING_TOKEN"] == str(token)
    other = "b" if first == "a" else "a"
    stopped, process = nodes[first].note_processes(), psutil.Process(int(pid))
    assert process in stopped
    # 2. its node stops: it is taken over when that node is missed, and not before
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    stopped_s = lease_clock_s()
    was_missed = False

    def taken_over() -> str:
        nonlocal was_missed
        told = pid_told(nodes[other])
        was_missed = was_missed or cluster.sees(other, set())
        assert was_missed or not told
        return told

    second_pid = wait_until(taken_over, 40, "the other node has taken it over")
    assert second_pid != pid
    assert owner(cluster, other, after=token)[0] == other
    # 3. the node goes on, and finds that it has lost it
    for each in stopped:
        each.send_signal(signal.SIGCONT)
    wait_until(lambda: is_gone(process), 20, "the process of the owner before has ended")
    wait_until(lambda: cluster.sees(first, {other}) and cluster.sees(other, {first}), 40, "both nodes are there again")
    assert wait_until(lambda: pid_told(nodes[first]), 20, "its node finds the owner of now") == second_pid
    # 4. the owner of now is killed
    killed, second = nodes[other].note_processes(), psutil.Process(int(second_pid))
    assert second in killed
    for each in killed:
        each.send_signal(signal.SIGKILL)
    killed_s = lease_clock_s()
    third_pid = wait_until(lambda: pid_told(nodes[first]), 40, "it was taken over once more")
    assert third_pid not in (pid, second_pid)
    wait_until(lambda: is_gone(second), 10, "the process of the killed node is gone")
    # 5. what all nodes have written proves it, but for what processes could not say that were killed, here or as hung ones
    history = read_history(line for node in nodes.values() for line in node.errors.splitlines())
    assert [record["event"] for record in history].count("used") == 3
    assert broken_promises(history, {first: stopped_s, other: killed_s}) == []
