"""What a node says about itself, and the commands it carries out, asked through its own command line."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcp_gateway.actors.node.node_status import merge_cell_statuses, tree_row, with_lag
from tests.doubles.gateway_process import GatewayProcess, wait_until

# ---- status of several cells (pure)


def cell_status(health: str, circuit: str, idle: int) -> dict[str, object]:
    replica = {"address": "http://one/mcp", "health": health, "circuit": circuit, "pool": {"idle": idle}, "ring_share": 1.0}
    backends = [{"name": "files", "protocol": "auto", "replicas": [replica]}]
    return {"backends": backends, "sessions": 2, "connections": {"streamable_http": idle}}


def test_counts_of_cells_are_added_and_a_replica_is_as_bad_as_the_worst_cell_sees_it() -> None:
    first, second = cell_status("healthy", "open", 3), cell_status("unhealthy", "closed", 4)
    merged = merge_cell_statuses([first, second])
    assert (merged["sessions"], merged["connections"]) == (4, {"streamable_http": 7})
    ((replica,),) = (backend["replicas"] for backend in merged["backends"])
    assert (replica["health"], replica["circuit"], replica["pool"]) == ("unhealthy", "open", {"idle": 7})


def test_virtual_servers_are_the_same_in_every_cell() -> None:
    servers = [{"name": "research", "include": ["files/*"], "exclude": []}]
    assert merge_cell_statuses([cell_status("healthy", "open", 3) | {"servers": servers}] * 2)["servers"] == servers
    assert "servers" not in merge_cell_statuses([cell_status("healthy", "open", 3) | {"servers": []}])


def test_the_port_of_grpc_is_told_where_there_is_one() -> None:
    assert merge_cell_statuses([cell_status("healthy", "open", 3) | {"grpc_port": 50052}] * 2)["grpc_port"] == 50052
    assert "grpc_port" not in merge_cell_statuses([cell_status("healthy", "open", 3) | {"grpc_port": 0}])


def test_merging_changes_none_of_the_statuses_it_is_given() -> None:
    first, second = cell_status("healthy", "open", 3), cell_status("unhealthy", "closed", 4)
    merge_cell_statuses([first, second])
    assert (first, second) == (cell_status("healthy", "open", 3), cell_status("unhealthy", "closed", 4))


def test_a_replica_that_only_one_cell_knows_is_told() -> None:
    other = cell_status("healthy", "closed", 1)
    other["backends"] = [{"name": "files", "protocol": "auto", "replicas": [{"address": "http://two/mcp"}]}]
    merged = merge_cell_statuses([cell_status("healthy", "closed", 1), other])
    addresses = [replica["address"] for replica in merged["backends"][0]["replicas"]]
    assert addresses == ["http://one/mcp", "http://two/mcp"]


def test_what_is_left_out_is_told_once_by_all_cells() -> None:
    left_out = [{"name": "bad", "title": "Bad one", "reason": "found 3; allowed: a table"}]
    merged = merge_cell_statuses([{**cell_status("healthy", "closed", 1), "left_out": left_out} for _ in range(2)])
    assert merged["left_out"] == left_out


def test_a_node_without_cells_has_an_empty_status() -> None:
    assert merge_cell_statuses([]) == {"backends": [], "sessions": 0, "connections": {}}


@pytest.mark.parametrize(("last_ids", "lag"), [([40, 37], 4), ([41], 0), ([45], 0), ([], 0), ([0, 41], 0)])
def test_a_node_is_behind_the_log_of_its_cluster_as_the_last_of_its_cells_is(last_ids: list[int], lag: int) -> None:
    """A cell that has got no event yet does not know by how much."""
    assert with_lag({"node": "a", "last_event_id": 41}, last_ids) == {"node": "a", "last_event_id": 41, "lag_events": lag}


def test_a_row_has_the_fields_of_the_contract() -> None:
    row = tree_row("cell/0", pid=7, uptime_s=1.23456)
    assert row == {"name": "cell/0", "pid": 7, "incarnation": 1, "uptime_seconds": 1.235, "restarts": 0, "children": []}


# ---- a node that runs

SETTINGS = '[gateway]\ncells = 2\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("node") / "state", settings=SETTINGS) as running:
        yield running


def test_the_tree_names_every_process_of_the_node_and_no_other(gateway: GatewayProcess) -> None:
    rows = gateway.rows()
    processes = {name: row["pid"] for name, row in rows.items() if name.count("/") < 2}
    assert processes.keys() == {"launcher", "admin", "logger", "node-supervisor", "event-log", "cell/0", "cell/1"}
    assert sorted(processes.values()) == sorted(process.pid for process in gateway.note_processes())
    assert rows["cell/1/router"]["pid"] == processes["cell/1"]
    assert all(psutil.pid_exists(pid) for pid in processes.values())


def test_processes_name_themselves_for_ps(gateway: GatewayProcess) -> None:
    rows = gateway.rows()
    for name in ("launcher", "admin", "logger", "node-supervisor", "event-log", "cell/0", "cell/1"):
        assert psutil.Process(rows[name]["pid"]).cmdline()[0].strip() == f"mcp-gateway: {name}"


def test_counts_are_those_of_all_cells(gateway: GatewayProcess) -> None:
    status = gateway.status()
    assert status["sessions"] == 2
    assert status["backends"][0]["replicas"][0]["pool"] == {"idle": 2}


def test_an_orderly_restart_replaces_one_process(gateway: GatewayProcess) -> None:
    before = gateway.rows()
    done = gateway.command("restart", "cell/1")
    assert (done.returncode, done.stdout) == (0, "cell/1 restarted\n")
    after = gateway.rows()
    assert after["cell/1"]["incarnation"] == before["cell/1"]["incarnation"] + 1
    assert after["cell/0"]["pid"] == before["cell/0"]["pid"]
    assert gateway.command("restart", "event-log").returncode == 0


def test_all_cells_are_restarted_one_after_the_other_while_the_gateway_serves(gateway: GatewayProcess) -> None:
    before = gateway.rows()
    answers: list[bool] = []
    has_ended = threading.Event()

    def keep_asking() -> None:
        while not has_ended.is_set():
            answers.append(gateway.serves())

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        done = gateway.command("restart", "--rolling")
    finally:
        has_ended.set()
        asking.join()
    assert (done.returncode, done.stdout) == (0, "cell/0 restarted\ncell/1 restarted\n"), done.stderr
    after = gateway.rows()
    for cell in ("cell/0", "cell/1"):
        assert after[cell]["incarnation"] == before[cell]["incarnation"] + 1
    assert after["event-log"]["pid"] == before["event-log"]["pid"]
    assert any(answers)
    # What waits in the queue of a socket that closes is lost; whoever tries again is served at once.
    assert all(first or second for first, second in itertools.pairwise(answers))


@pytest.mark.parametrize("arguments", [(), ("cell/0", "--rolling")])
def test_what_to_restart_is_named_once(gateway: GatewayProcess, arguments: tuple[str, ...]) -> None:
    assert gateway.command("restart", *arguments).returncode == 2


def test_a_signal_other_than_kill_reaches_the_process(gateway: GatewayProcess) -> None:
    """The logger: nobody asks it for a heartbeat, so that it may be stopped for as long as this takes."""
    pid = gateway.pid("logger")
    assert gateway.command("kill", "logger", "--signal", str(int(signal.SIGSTOP))).returncode == 0
    process = psutil.Process(pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, 10, "it is stopped")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: process.status() != psutil.STATUS_STOPPED and gateway.pid("logger") == pid, 10, "it goes on")


def test_a_command_for_an_actor_inside_a_cell_is_passed_on(gateway: GatewayProcess) -> None:
    assert gateway.command("kill", "cell/1/router").returncode == 0
    refused = gateway.command("kill", "cell/1/nobody")
    assert (refused.returncode, refused.stderr) == (1, "mcp-gateway: there is no nobody\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["kill", "nobody"], "there is no child 'nobody'; known are event-log, cell/0, cell/1, node-supervisor, admin, logger"),
        (["restart", "cell/7/router"], "there is no child 'cell/7/router'"),
        (["kill", "cell/0", "--signal", "4000"], "4000 is not a signal"),
        (["kill", "cell/0/router", "--signal", "15"], "cell/0/router is an actor inside a process"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(gateway: GatewayProcess, arguments: list[str], text: str) -> None:
    done = gateway.command(*arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"mcp-gateway: {text}")


# ---- backends that change while it runs


def backends(gateway: GatewayProcess) -> list[str]:
    return [backend["name"] for backend in gateway.status()["backends"]]


def test_a_change_is_known_in_every_cell_that_runs_or_starts_later(gateway: GatewayProcess) -> None:
    assert gateway.command("add-backend", "two", "--builtin", "demo").stdout == "two added\n"
    assert backends(gateway) == ["demo", "two"]
    for name in ("cell/0", "cell/1"):
        gateway.command("restart", name)
        assert backends(gateway) == ["demo", "two"]
    assert gateway.command("remove-backend", "two").stdout == "two removed\n"
    assert backends(gateway) == ["demo"]


def test_a_change_waits_for_a_cell_that_hangs_until_that_one_has_been_replaced(gateway: GatewayProcess) -> None:
    pid = gateway.pid("cell/1")
    os.kill(pid, signal.SIGSTOP)
    assert gateway.command("add-backend", "two", "--builtin", "demo").returncode == 0
    assert not psutil.pid_exists(pid)
    gateway.wait_for_another("cell/1", pid, 10)
    wait_until(lambda: gateway.serves() and backends(gateway) == ["demo", "two"], 5, "it has the change")
    assert gateway.command("remove-backend", "two").returncode == 0


def test_a_change_that_cannot_be_kept_is_not_made(gateway: GatewayProcess) -> None:
    (run,) = gateway.state_dir.glob("mcp-gateway-run-*")
    (run / "backends.new").unlink(missing_ok=True)
    (run / "backends.new").mkdir()
    done = gateway.command("add-backend", "two", "--builtin", "demo")
    (run / "backends.new").rmdir()
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "cannot be written: Is a directory" in done.stderr
    assert backends(gateway) == ["demo"]


def test_what_is_kept_of_backends_is_for_this_user_only(gateway: GatewayProcess) -> None:
    options = ["--replica", "http://127.0.0.1:1/mcp", "--header", "Authorization=s3cret"]
    added = gateway.command("add-backend", "two", *options)
    assert (added.returncode, "every user of this machine" in added.stderr, "s3cret" in added.stderr) == (0, True, False)
    (kept,) = gateway.state_dir.glob("mcp-gateway-run-*/backends.json")
    assert kept.stat().st_mode & 0o077 == 0
    assert "s3cret" in kept.read_text()
    assert "s3cret" not in gateway.command("status", "--json").stdout
    assert gateway.command("remove-backend", "two").returncode == 0
    assert "s3cret" not in kept.read_text()


def test_a_gateway_without_a_file_has_none_to_read_again(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=None) as running:
        done = running.command("reload")
        text = "mcp-gateway: the gateway was started without a file: name one with --config\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", text)
        added = running.command("add-backend", "two", "--builtin", "demo")
        assert added.returncode == 2  # the demo has its names to itself
        assert added.stderr.startswith("add-backend: backends[0].prefix: found ''; allowed: an empty prefix only with a single")
        assert "remove-backend demo, and add it again" in added.stderr
        assert running.command("remove-backend", "demo").returncode == 0
        assert running.command("add-backend", "two", "--builtin", "demo").returncode == 0
        assert running.command("add-backend", "demo", "--builtin", "demo").returncode == 0
