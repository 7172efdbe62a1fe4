"""What happens when a process of the gateway is killed, stopped or told to end: service comes back, nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_gateway.scripts.serving.start_checks import live_runs
from tests.doubles.gateway_process import GatewayProcess, is_gone, run_command, wait_until
from tests.end_to_end.raw_http import modern, tool_call

TWO_CELLS = "[gateway]\ncells = 2\n"
PROCESSES = {"launcher", "admin", "logger", "node-supervisor", "event-log", "cell/0"}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "state") as running:
        yield running


# ---- kill -9


def in_3_s(take: Callable[[int], float]) -> None:
    """`take` gives the seconds it took; its argument counts from 1. It has three tries: the gateway is slow each time, a machine
    with other work is not.
    """
    took_s = [take(1)]
    while took_s[-1] >= 3 and len(took_s) < 3:
        took_s.append(take(len(took_s) + 1))
    assert took_s[-1] < 3, took_s


@pytest.mark.parametrize("name", ["cell/0", "node-supervisor", "admin"])
def test_service_is_back_within_3_s_after_the_death_of(name: str, gateway: GatewayProcess) -> None:
    def is_whole() -> dict[str, dict[str, Any]] | None:
        rows = gateway.rows()
        return rows if rows.keys() >= PROCESSES and all(rows[each]["pid"] for each in PROCESSES) else None

    def kill(number: int) -> float:
        before = gateway.rows()
        old = [process for process in gateway.note_processes() if process.pid != gateway.process.pid]
        killed_s = time.monotonic()
        os.kill(before[name]["pid"], signal.SIGKILL)
        wait_until(lambda: gateway.get("/pid", timeout_s=0.5) != before["cell/0"]["pid"], 15, "another cell answers")
        took_s = time.monotonic() - killed_s
        after = wait_until(is_whole, 15, "the tree is complete again")
        assert after[name]["pid"] != before[name]["pid"]
        assert after["launcher"]["pid"] == before["launcher"]["pid"]
        if name == "cell/0":
            assert (after[name]["restarts"], after["event-log"]["pid"]) == (number, before["event-log"]["pid"])
        else:
            assert after["node-supervisor"]["restarts"] == number
            assert [process for process in old if not is_gone(process)] == []
        return took_s

    in_3_s(kill)
    assert gateway.end() == 0
    assert gateway.left_over() == []


@pytest.mark.parametrize("name", ["event-log", "logger"])
def test_clients_do_not_notice_the_death_of(name: str, gateway: GatewayProcess) -> None:
    before = gateway.rows()
    done = gateway.command("kill", name)
    assert done.returncode == 0, done.stderr
    deadline_s = time.monotonic() + 1
    while time.monotonic() < deadline_s:
        assert gateway.get("/pid") == before["cell/0"]["pid"]
    after = gateway.wait_for_another(name, before[name]["pid"], 10)
    unharmed = PROCESSES - {name}
    assert {each: after[each]["pid"] for each in unharmed} == {each: before[each]["pid"] for each in unharmed}
    assert gateway.end() == 0
    assert gateway.left_over() == []


def test_nothing_outlives_the_launcher(gateway: GatewayProcess) -> None:
    os.kill(gateway.pid("cell/0"), signal.SIGSTOP)  # one that cannot leave by itself
    gateway.end(signal.SIGKILL)
    wait_until(lambda: gateway.left_over() == [], 10, "every process has ended")


def test_a_second_death_of_the_node_supervisor_is_survived_as_well(gateway: GatewayProcess) -> None:
    for _ in range(2):
        old_pid = gateway.pid("node-supervisor")
        gateway.note_processes()
        os.kill(old_pid, signal.SIGKILL)
        gateway.wait_for_another("node-supervisor", old_pid, 15)
    assert gateway.rows()["node-supervisor"]["restarts"] == 2
    assert gateway.end() == 0
    assert gateway.left_over() == []


def test_a_system_that_keeps_dying_is_given_up_with_one_clear_line(gateway: GatewayProcess) -> None:
    deadline_s = time.monotonic() + 30
    while gateway.process.poll() is None:
        assert time.monotonic() < deadline_s
        for process in gateway.note_processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # also of a zombie
                if "node-supervisor" in " ".join(process.cmdline()):
                    process.kill()
        time.sleep(0.05)
    assert gateway.process.returncode == 1
    assert "mcp-gateway: the actor system died more than 5 times in 60 s" in gateway.errors
    assert gateway.left_over() == []


def test_events_survive_the_death_of_the_event_log(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", settings=TWO_CELLS) as gateway:
        # 1. Publish through both cells while the log is killed twice.
        stop = threading.Event()
        published: list[str] = []

        def publish() -> None:
            while not stop.is_set():
                topic = f"test.n{len(published)}"
                gateway.get(f"/publish?topic={topic}")
                published.append(topic)

        publisher = threading.Thread(target=publish)
        publisher.start()
        try:
            for _ in range(2):
                pid = gateway.pid("event-log")
                os.kill(pid, signal.SIGKILL)
                gateway.wait_for_another("event-log", pid, 10)
        finally:
            stop.set()
            publisher.join()
        # 2. Every event has reached every cell once, with the same id there, and no id is missing.
        assert len(published) > 20
        seen: dict[int, list[list[object]]] = {}

        def all_arrived() -> bool:
            answer = gateway.get("/events")
            assert [event_id for event_id, _ in answer["events"]] == list(range(1, len(answer["events"]) + 1))
            # The node tells of the deaths as well.
            seen[answer["pid"]] = [event for event in answer["events"] if not event[1].startswith("mcp.supervisor.")]
            return len(seen) == 2 and all(len(events) >= len(published) for events in seen.values())

        wait_until(all_arrived, 15, "all events are in both cells")
        first, second = seen.values()
        assert first == second
        assert sorted(topic for _, topic in first) == sorted(published)


@pytest.mark.parametrize("name", ["cell/0", "event-log", "node-supervisor", "admin", "logger"])
def test_the_gateway_itself_is_healthy_again_within_3_s_after_the_death_of(name: str, tmp_path: Path) -> None:
    """As above with the real cell and `mcp-gateway kill`."""
    with GatewayProcess(tmp_path / "state", cell_factory=None) as gateway:

        def kill(_: int) -> float:
            old_pid = gateway.pid(name)
            assert gateway.command("kill", name).returncode == 0
            killed_s = time.monotonic()
            wait_until(lambda: gateway.get("/health", timeout_s=0.5)["status"] == "healthy", 15, "it is healthy")
            took_s = time.monotonic() - killed_s
            gateway.wait_for_another(name, old_pid, 15)
            wait_until(lambda: gateway.get("/health")["status"] == "healthy", 15, "it is healthy with the new process as well")
            gateway.note_processes()
            return took_s

        in_3_s(kill)
        assert gateway.end() == 0
        assert gateway.left_over() == []


# ---- more clients than files


@pytest.mark.parametrize("mode", ["node", "embedded"])
def test_more_connections_than_file_descriptors_are_refused_and_the_others_served(mode: str, tmp_path: Path) -> None:
    """Streams here, for idle ones make room. Before there was a bound, the cell ended for want of a descriptor."""
    arguments = ["--embedded"] if mode == "embedded" else []
    settings = '[gateway]\nmax_share_per_address = 1.0\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'
    with (
        GatewayProcess(tmp_path / "state", *arguments, cell_factory=None, settings=settings, file_limit=256) as gateway,
        contextlib.ExitStack() as stack,
    ):
        host, _, port = gateway.url.removeprefix("http://").partition(":")

        def connected() -> socket.socket:
            return stack.enter_context(socket.create_connection((host, int(port)), timeout=5))

        message, headers = modern(tool_call("demo__slow", {"seconds": 2}))
        call = json.dumps(message).encode()
        lines = [f"{name}: {value}" for name, value in {**headers, "Host": host, "Content-Length": str(len(call))}.items()]
        served = connected()
        served.sendall("\r\n".join(["POST /mcp HTTP/1.1", *lines, "", ""]).encode() + call)
        for _ in range(300):
            connected().sendall(b"GET /mcp/sse/events/all HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        def is_refused() -> bool:
            with socket.create_connection((host, int(port)), timeout=5) as late:
                return late.recv(100).startswith(b"HTTP/1.1 503 ")

        wait_until(is_refused, 5, "the next one is refused")
        assert served.recv(1000).startswith(b"HTTP/1.1 200 ")
        stack.close()
        wait_until(lambda: gateway.get("/health/live"), 5, "there is room again")
        assert gateway.errors.count("connections of clients are refused") == 1
        assert "restart" not in gateway.errors
        assert "Traceback" not in gateway.errors
        assert gateway.end() == 0
        assert gateway.left_over() == []


# ---- stopped and hung


def test_a_stopped_cell_is_killed_and_replaced(gateway: GatewayProcess) -> None:
    old_pid = gateway.pid("cell/0")
    os.kill(old_pid, signal.SIGSTOP)
    wait_until(lambda: gateway.get("/pid", timeout_s=0.5) != old_pid, 8, "another cell answers")
    assert gateway.rows()["cell/0"]["restarts"] == 1


def test_a_cell_whose_loop_hangs_is_killed_and_replaced(gateway: GatewayProcess) -> None:
    old_pid = gateway.pid("cell/0")
    with pytest.raises(OSError, match="timed out"):
        gateway.get("/hang", timeout_s=0.5)
    wait_until(lambda: gateway.get("/pid", timeout_s=0.5) != old_pid, 8, "another cell answers")


def test_a_hung_cell_does_not_disturb_the_other(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", settings=TWO_CELLS) as gateway:
        stopped, other = (gateway.rows()[name]["pid"] for name in ("cell/0", "cell/1"))
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: gateway.rows()["cell/0"]["restarts"] == 1, 8, "the stopped cell is replaced")
        assert gateway.rows()["cell/1"]["pid"] == other
        assert gateway.end() == 0
        assert gateway.left_over() == []


def test_a_stopped_node_supervisor_is_replaced_with_all_that_hangs_on_it(gateway: GatewayProcess) -> None:
    old_pid = gateway.pid("node-supervisor")
    os.kill(old_pid, signal.SIGSTOP)
    gateway.wait_for_another("node-supervisor", old_pid, 20)
    assert gateway.get("/pid")


def test_a_command_gives_up_soon_where_the_admin_is_stopped_and_works_again_when_it_goes_on(gateway: GatewayProcess) -> None:
    pid = gateway.pid("admin")
    os.kill(pid, signal.SIGSTOP)
    asked_s = time.monotonic()
    done = gateway.command("status")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "does not answer as the gateway would" in done.stderr
    assert time.monotonic() - asked_s < 20  # Thespian alone waits for 50 s and longer
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: gateway.pid("admin") == pid, 10, "it answers again")


def test_a_cell_whose_content_escalates_is_restarted(gateway: GatewayProcess) -> None:
    old_pid = gateway.get("/escalate")
    wait_until(lambda: gateway.get("/pid", timeout_s=0.5) != old_pid, 10, "another cell answers")


def test_an_embedded_cell_that_escalates_is_started_again_and_given_up_when_it_does_so_too_often(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", "--embedded") as gateway:
        for _ in range(5):
            gateway.get("/publish?topic=test.one")
            wait_until(lambda: gateway.get("/events", timeout_s=0.5)["events"], 10, "the event is here")
            gateway.get("/escalate")
            wait_until(lambda: gateway.get("/events", timeout_s=0.5)["events"] == [], 10, "a new cell answers")
        gateway.get("/escalate")
        assert gateway.process.wait(5) == 1
        assert gateway.errors.splitlines()[-1].startswith("mcp-gateway: the cell failed more than 5 times in 60 s")


# ---- orderly ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["node", "embedded"])
def test_a_signal_drains_and_ends_with_0_and_leaves_nothing(number: signal.Signals, mode: str, tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", *(["--embedded"] if mode == "embedded" else [])) as gateway:
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(gateway.get("/slow?seconds=2", timeout_s=10)))
        client.start()
        wait_until(lambda: gateway.get("/open") == 1, 5, "the request has arrived")
        assert gateway.end(number) == 0
        client.join()
        assert len(answers) == 1
        assert gateway.left_over() == []
        assert [each.name for each in gateway.state_dir.iterdir() if each.name.startswith("mcp-gateway-run")] == []


@pytest.mark.parametrize("mode", ["node", "embedded"])
def test_a_gateway_that_shall_survive_its_terminal_does(mode: str, tmp_path: Path) -> None:
    arguments = ["--embedded"] if mode == "embedded" else []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; a child inherits it
    try:
        gateway = GatewayProcess(tmp_path / "state", *arguments)
    finally:
        signal.signal(signal.SIGHUP, before)
    with gateway:
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.get("/pid")
        assert gateway.process.poll() is None
        assert gateway.end() == 0


@pytest.mark.parametrize("mode", ["node", "embedded"])
def test_a_gateway_whose_output_nobody_reads_serves_and_ends_in_order(mode: str, tmp_path: Path) -> None:
    """As in `mcp-gateway serve | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    gateway = GatewayProcess(tmp_path / "state", *(["--embedded"] if mode == "embedded" else []), stdout=writer)
    os.close(writer)
    try:
        (found,) = wait_until(lambda: live_runs(gateway.state_dir), 10, "it serves")
        gateway.url = found["url"]
        assert gateway.get("/pid")
        gateway.note_processes()
        assert gateway.end() == 0
        assert gateway.left_over() == []
    finally:
        gateway.__exit__()


def test_a_request_that_outlives_the_drain_does_not_keep_the_gateway_from_ending_in_order(tmp_path: Path) -> None:
    """The drain is longer than all else may take: a second one would be cut short by SIGKILL."""
    stopped = tmp_path / "stopped"

    def ask() -> None:
        with pytest.raises(OSError, match=r"."):
            gateway.get("/slow?seconds=30", 20)

    settings = '[gateway]\ndrain_timeout = 5.5\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'
    with GatewayProcess(tmp_path / "state", env={"STAND_IN_STOPPED": str(stopped)}, settings=settings) as gateway:
        client = threading.Thread(target=ask)
        client.start()
        wait_until(lambda: gateway.get("/open") == 1, 5, "the request has arrived")
        assert gateway.end(signal.SIGTERM, timeout_s=15) == 0
        client.join()
        assert stopped.read_text() == "cell/0"
        assert gateway.left_over() == []


def test_a_second_signal_ends_the_drain(gateway: GatewayProcess) -> None:
    def ask() -> None:
        with pytest.raises(OSError, match=r"."):
            gateway.get("/slow?seconds=8", 20)

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: gateway.get("/open") == 1, 5, "the request has arrived")
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not gateway.serves(), 5, "the first signal is taken: two at once are one")
    ended_s = time.monotonic()
    assert gateway.end(signal.SIGTERM) == 0
    assert time.monotonic() - ended_s < 6  # the drain would take 8
    client.join()
    assert gateway.left_over() == []


def test_two_gateways_do_not_disturb_each_other(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "one") as one, GatewayProcess(tmp_path / "two") as two:
        before = two.rows()
        old_pid = one.pid("admin")
        os.kill(old_pid, signal.SIGKILL)
        wait_until(one.serves, 10, "the first serves again")
        one.wait_for_another("admin", old_pid, 10)
        assert one.end() == 0
        assert two.get("/pid")
        names = PROCESSES - {"launcher"}
        assert {name: two.rows()[name]["pid"] for name in names} == {name: before[name]["pid"] for name in names}


# ---- refused starts


def _serve(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    options = ["--state-dir", str(tmp_path / "state"), "--cell-factory", "stand_in_cell:make_cell"]
    return run_command("serve", *options, *arguments, env=env)


@pytest.mark.parametrize("embedded", [[], ["--embedded"]])
def test_a_port_in_use_is_refused_with_one_line(tmp_path: Path, embedded: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _serve(tmp_path, "--port", str(port), "--admin-port", "0", *embedded)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mcp-gateway: port {port} on 127.0.0.1 is in use\n")


def test_the_port_of_another_gateway_is_refused(gateway: GatewayProcess, tmp_path: Path) -> None:
    done = _serve(tmp_path / "other", "--port", gateway.url.rpartition(":")[2], "--admin-port", "0")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_admin_port_of_another_gateway_is_refused(gateway: GatewayProcess, tmp_path: Path) -> None:
    started_s = time.monotonic()
    done = _serve(tmp_path, "--port", "0", "--admin-port", str(gateway.admin_port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"mcp-gateway: actor system: port {gateway.admin_port} on 127.0.0.1 is in use")
    assert len(done.stderr.splitlines()) == 1
    assert time.monotonic() - started_s < 8  # what listens there is not waited for, which would take 11 s
    assert gateway.get("/pid")


@pytest.mark.parametrize("embedded", [[], ["--embedded"]])
def test_cells_that_cannot_start_end_the_start_with_one_clear_line(tmp_path: Path, embedded: list[str]) -> None:
    done = _serve(tmp_path, "--port", "0", "--admin-port", "0", *embedded, STAND_IN_FAILS="start")
    assert done.returncode == 1
    assert "mcp-gateway: could not start: " in done.stderr.splitlines()[-1]
    assert done.stdout == ""
