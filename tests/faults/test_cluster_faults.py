"""What a cluster does when its engine is away, or a node, or a process of one dies: each row of the table in README is here."""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.doubles.cluster_nodes import Cluster, cluster_key, node_settings, running_cluster
from tests.doubles.gateway_process import DOUBLES, STAND_IN, GatewayProcess, is_gone, wait_until
from tests.doubles.nats_server import NatsServer
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.moving_session import Session

STDIO = f'[[backends]]\nname = "stdio"\ncommand = {json.dumps([sys.executable, str(DOUBLES / "odd_stdio_server.py")])}\n'


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
    told = b.get("/health")
    assert (told["status"], told["components"]["cluster"]["status"]) == ("degraded", "degraded")
    assert "the engine is away; this node is no member" in told["components"]["cluster"]["reason"]
    assert is_unreachable(process, b)  # and does not start the process once more
    done = a.command("add-backend", "more", "--builtin", "demo")
    assert done.returncode == 1
    assert "nothing has changed" in done.stderr
    assert "more" not in {backend["name"] for backend in a.status()["backends"]}
    check_what_goes_on()
    cluster.nats.start()
    cluster.wait_until_all_see_all()
    wait_until(lambda: process.text(b, "pid") == pid, 10, "the process is spoken to from node b again")


@pytest.mark.timeout(240)
def test_a_session_whose_node_has_died_goes_on_at_the_other_one_in_a_process_of_its_own(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    stateless, process = Session(a, "/mcp/servers/legacy"), Session(a, "/mcp/servers/stdio")
    pid = process.text(b, "pid")
    stdio = psutil.Process(int(pid))
    for each in a.note_processes():
        if not each.is_running() or each.name() == "nats-server":
            continue
        each.kill()
    assert stateless.text(b, "echo", message="hello") == "hello"
    wait_until(lambda: cluster.sees("b", set()), 20, "node b misses node a")
    other = process.text(b, "pid")
    assert other != pid
    assert process.text(b, "pid") == other
    wait_until(lambda: is_gone(stdio), 10, "the process of the node that has died is gone")


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
def test_a_node_is_drained_from_another_one_and_none_of_its_clients_is_refused(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    session = Session(b, "/mcp/servers/legacy")
    drained = a.command("drain", "b")
    assert drained.returncode == 0, drained.stderr
    assert b.process.wait(20) == 0
    wait_until(lambda: cluster.sees("a", set()), 20, "node a knows that node b has gone")
    assert session.text(a, "echo", message="hello") == "hello"
    gone = a.command("kill", "b/cell/0")
    assert gone.returncode == 1
    assert "there is no child 'b/cell/0'" in gone.stderr


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


# ---- events


@pytest.fixture
def publishers(tmp_path: Path) -> Iterator[Cluster]:
    """Nodes whose cells publish what the test asks for, and nothing else of theirs."""
    with running_cluster(tmp_path, "", "a", "b", cells=1, cell_factory=STAND_IN) as running:
        yield running


def publish(node: GatewayProcess, name: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        node.get(f"/publish?topic=test.{name}-{number}")


def seen(node: GatewayProcess) -> list[tuple[int, str]]:
    """(id, topic) of what the tests have published, as this node has it."""
    return [(event_id, topic) for event_id, topic in node.get("/events")["events"] if topic.startswith("test.")]


def of(node: GatewayProcess, name: str) -> list[str]:
    return [topic for _, topic in seen(node) if topic.startswith(f"test.{name}-")]


def topics(name: str, *numbers: int) -> list[str]:
    return [f"test.{name}-{number}" for number in numbers]


@pytest.mark.timeout(240)
def test_events_wait_while_the_engine_is_away_and_come_to_all_nodes_once_and_in_order(publishers: Cluster) -> None:
    a, b = publishers.nodes["a"], publishers.nodes["b"]
    publish(a, "a", 1, 5)
    publish(b, "b", 1, 5)
    wait_until(lambda: len(seen(a)) == len(seen(b)) == 10, 20, "both nodes have all events")
    assert seen(a) == seen(b)
    publishers.nats.kill()
    publish(a, "a", 6, 10)
    publish(b, "b", 6, 10)
    assert a.command("kill", "event-log").returncode == 0
    publish(a, "a", 11, 12)
    assert len(seen(b)) == 10
    publishers.nats.start()
    wait_until(lambda: len(seen(a)) == len(seen(b)) == 22, 40, "both nodes have all events")
    assert seen(a) == seen(b)
    assert of(b, "a") == topics("a", *range(1, 13))
    assert of(a, "b") == topics("b", *range(1, 11))


@pytest.mark.timeout(240)
def test_what_a_node_has_published_while_the_engine_was_away_outlives_the_node(publishers: Cluster) -> None:
    a, b = publishers.nodes["a"], publishers.nodes["b"]
    publish(a, "a", 1, 3)
    wait_until(lambda: of(b, "a") == topics("a", 1, 2, 3), 20, "the other node has the events")
    publishers.nats.kill()
    publish(a, "a", 4, 6)
    assert a.end() == 0
    publishers.nats.start()
    settings = a.state_dir.with_suffix(".toml").read_text()
    with GatewayProcess(a.state_dir, settings=settings) as again:
        wait_until(lambda: of(b, "a") == topics("a", *range(1, 7)), 40, "the other node has the rest")
        publish(again, "a", 7, 7)
        wait_until(lambda: of(b, "a") == topics("a", *range(1, 8)), 20, "and what is new")
        wait_until(lambda: of(again, "a")[-1:] == topics("a", 7), 20, "as the node itself has")


@pytest.mark.timeout(240)
def test_after_the_engine_has_lost_its_log_ids_go_on_rising(publishers: Cluster, tmp_path: Path) -> None:
    a, b = publishers.nodes["a"], publishers.nodes["b"]
    publish(a, "a", 1, 3)
    wait_until(lambda: len(seen(a)) == len(seen(b)) == 3, 20, "both nodes have all events")
    publishers.nats.kill()
    publishers.nats.folder = tmp_path / "empty"
    publishers.nats.start()
    publish(b, "b", 1, 3)
    for node in (a, b):
        wait_until(lambda node=node: of(node, "b") == topics("b", 1, 2, 3), 40, "what is new has come")  # type: ignore[misc]
    ids = [event_id for event_id, _ in seen(a)]
    assert ids == sorted(set(ids))
    publishers.wait_until_all_see_all()


# ---- access


def guarded() -> str:
    """Two programs with keys of their own."""
    keys = "".join(
        f'[[auth.api_keys]]\nname = "{name}"\nhash = "sha256:{hashlib.sha256(name.encode()).hexdigest()}"\n' for name in PROGRAMS
    )
    return f'[auth]\n{keys}[[backends]]\nname = "demo"\nbuiltin = "demo"\n'


PROGRAMS = ("ci", "cron")


def may_ask(node: GatewayProcess, program: str) -> bool:
    """By many connections, so that each cell is among those asked."""
    statuses = set()
    for _ in range(8):
        asked = urllib.request.Request(f"{node.url}/", headers={"Authorization": f"Bearer {program}"})
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                statuses.add(answer.status)
        except urllib.error.HTTPError as error:
            statuses.add(error.code)
    assert statuses in ({200}, {401})
    return statuses == {200}


@pytest.mark.timeout(240)
def test_access_is_taken_at_all_nodes_when_the_command_ends_and_where_nats_is_away_as_soon_as_it_is_back(tmp_path: Path) -> None:
    with running_cluster(tmp_path, guarded(), "a", "b") as cluster:
        a, b = cluster.nodes["a"], cluster.nodes["b"]
        # 1. a command at one node holds at both when it ends
        assert a.command("revoke", "ci").returncode == 0
        assert [may_ask(node, "ci") for node in (a, b)] == [False, False]
        assert [may_ask(node, "cron") for node in (a, b)] == [True, True]
        assert b.command("revoke", "--undo", "ci").returncode == 0
        assert [may_ask(node, "ci") for node in (a, b)] == [True, True]
        # 2. without NATS it holds at its own node, and the command says that it is there alone
        cluster.nats.kill()
        done = a.command("revoke", "cron")
        assert done.returncode == 1
        assert "this node has taken it" in done.stderr
        assert [may_ask(node, "cron") for node in (a, b)] == [False, True]
        # 3. and everywhere when NATS is back
        cluster.nats.start()
        wait_until(lambda: not may_ask(b, "cron"), 30, "node b refuses whom node a has refused")
        assert not may_ask(a, "cron")
