"""What happens when a stdio server, its cell or the launcher is killed: service comes back, no process is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartGateway
from tests.doubles.gateway_process import is_gone
from tests.end_to_end.raw_http import LEGACY, Answer, ask
from tests.end_to_end.running_gateway import Form, RunningGateway, wait_until

ODD = Path(__file__).parents[1] / "doubles" / "odd_stdio_server.py"


def backend(*habit: str, **more: Any) -> dict[str, Any]:
    return {"name": "odd", "prefix": "", "command": [sys.executable, str(ODD), *habit], **more}


class Session:
    """A legacy client's session. can_be_asked: it gets a process of its own."""

    def __init__(self, gateway: RunningGateway, *, can_be_asked: bool = True) -> None:
        self.url = gateway.endpoint()
        content = {
            "protocolVersion": LEGACY,
            "capabilities": {"roots": {}} if can_be_asked else {},
            "clientInfo": {"name": "c", "version": "1"},
        }
        opened = self._ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": content}, {})
        assert opened.status == 200, opened.body
        self.headers = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY}
        assert self._ask({"jsonrpc": "2.0", "method": "notifications/initialized"}, self.headers).status == 202

    def _ask(self, message: dict[str, Any], headers: dict[str, str]) -> Answer:
        return ask(self.url, message, headers)

    def call(self, tool: str, **arguments: Any) -> Answer:
        content = {"name": tool, "arguments": arguments}
        return self._ask({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": content}, self.headers)

    def pid(self) -> int:
        answer = self.call("pid")
        assert answer.status == 200, answer.body
        return int(answer.text)


def servers(gateway: RunningGateway) -> list[psutil.Process]:
    """The processes of stdio servers, and of the guard, that run below this gateway."""
    found = []
    for process in gateway.processes():
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if ODD.name in line or "stdio-guard" in line or "process_guard" in line or "SIG_IGN" in line:
            found.append(process)
    return [process for process in found if not is_gone(process)]


def stop(pid: int) -> None:
    """By SIGSTOP, until it is: a process that sleeps in a read takes what comes before it runs again, and stops only then."""
    process = psutil.Process(pid)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, 10, "it is stopped")


def unread_bytes(pid: int) -> int:
    """What waits in the standard input of a process."""
    descriptor = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(descriptor)


def call_once_served(session: Session, tool: str) -> Answer | None:
    try:
        answer = session.call(tool)
    except OSError:
        return None
    return answer if answer.status == 200 else None


@pytest.fixture(params=["embedded", "two cells"])
def form(request: pytest.FixtureRequest) -> Form:
    chosen: Form = request.param
    return chosen


def test_after_kill_9_of_a_server_the_open_call_gets_the_reason_and_the_next_one_works(
    form: Form, start_gateway: StartGateway
) -> None:
    with start_gateway(form, [backend()]) as gateway:
        session, other = Session(gateway), Session(gateway)
        pid, other_pid = session.pid(), other.pid()
        stop(pid)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(session.call("echo")))
        thread.start()
        wait_until(lambda: unread_bytes(pid) > 0, 10, "the call is on its way to the process, which is stopped")
        os.kill(pid, signal.SIGKILL)
        thread.join(10)
        assert (answers[0].status, answers[0].reason) == (502, "upstream_failed")
        assert "the server's process was ended by SIGKILL" in answers[0].message["error"]["message"]
        assert session.pid() != pid
        assert other.pid() == other_pid, "another session's process has nothing to do with it"


def test_a_server_that_leaves_by_itself_is_started_again_for_the_next_call(form: Form, start_gateway: StartGateway) -> None:
    with start_gateway(form, [backend()]) as gateway:
        for can_be_asked in (True, False):
            session = Session(gateway, can_be_asked=can_be_asked)
            before = session.pid()
            assert "exit status 3" in session.call("exit", code=3).message["error"]["message"]
            assert session.pid() != before


def test_a_server_that_cannot_run_is_a_clear_error_and_no_busy_loop(form: Form, start_gateway: StartGateway) -> None:
    with start_gateway(form, [backend("dies")], expects_errors=True) as gateway:
        content = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        started_s, refused = time.monotonic(), []
        while time.monotonic() - started_s < 3:
            refused.append(ask(gateway.endpoint(), {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": content}))
        assert {answer.status for answer in refused} <= {502, 503}
        assert "exit status 4" in refused[0].message["error"]["message"]
        assert gateway.log.count("started process") < 12
        assert "cannot find my configuration" in gateway.log


@pytest.mark.parametrize("habit", [("dies",), ("raises", "1")])
def test_a_crash_loop_is_tried_less_and_less_and_told_of_in_health_log_and_refusals(
    form: Form, habit: tuple[str, ...], start_gateway: StartGateway
) -> None:
    """Whether the server ends before its session or in the middle of it."""
    sound = {"name": "demo", "builtin": "demo"}
    odd = {**backend(*habit), "prefix": "odd__"}
    content = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": content}
    with start_gateway(form, [odd, sound], gateway={"health_check_interval": 0.5}, expects_errors=True) as gateway:

        def reason() -> str:
            return str(gateway.health()["components"].get("odd/stdio:odd#0", {}).get("reason"))

        wait_until(lambda: reason().startswith("crash loop, next try in "), 30, "it is recognised")
        refused = wait_until(lambda: _refused_with_pause(gateway, initialize), 30, "callers are told")
        error = refused.message["error"]
        words = "cannot find my configuration" if habit == ("dies",) else "ValueError: no answer from "
        assert "crash loop, next try in " in error["message"]
        assert words in error["message"]
        assert words in reason()
        assert len(error["message"]) < 500
        assert abs(int(refused.headers["retry-after"]) - error["data"]["retry_after"]) <= 1.0
        started_s = time.monotonic()
        assert ask(gateway.endpoint("odd"), initialize).status == 503
        assert time.monotonic() - started_s < 1.0, "nobody waits for it"
        assert gateway.log.count("stderr: ") <= 10
        assert 2 <= gateway.log.count("crash loop, next try in ") <= 6
        assert gateway.log.count("started process") <= 2


@pytest.mark.parametrize("form", ["node", "two cells"])
def test_a_reload_tries_a_server_in_a_crash_loop_at_once(form: Form, start_gateway: StartGateway, tmp_path: Path) -> None:
    """Its file is as it was: what was wrong has been mended elsewhere. Of two cells one probes, and the other has the server."""
    program = tmp_path / "server.py"
    program.write_text("raise SystemExit('not installed')")
    loop = {**backend(), "command": [sys.executable, str(program)]}
    with start_gateway(form, [loop], gateway={"health_check_interval": 0.5}, expects_errors=True) as gateway:
        component = "odd/stdio:odd#0"

        def pause_s() -> float:
            found = re.search(r"next try in (\d+) s", str(gateway.health()["components"].get(component, {}).get("reason")))
            return float(found[1]) if found else 0.0

        wait_until(lambda: pause_s() >= 12.0, 60, "it is left alone for long")
        program.write_text(ODD.read_text())
        started_s = time.monotonic()
        assert gateway.admin("reload", "--config", str(gateway.config_path))[0] == 0
        wait_until(lambda: gateway.health()["components"][component]["status"] == "healthy", 10, "it is well")
        assert time.monotonic() - started_s < 10


def _refused_with_pause(gateway: RunningGateway, initialize: dict[str, Any]) -> Answer | None:
    answer = ask(gateway.endpoint("odd"), initialize)
    return answer if answer.status == 503 and "crash loop" in answer.message["error"]["message"] else None


def test_a_server_that_hangs_is_told_of_and_replaced(form: Form, start_gateway: StartGateway) -> None:
    with start_gateway(form, [backend()], gateway={"health_check_interval": 0.3}, expects_errors=True) as gateway:
        session = Session(gateway, can_be_asked=False)
        server = psutil.Process(session.pid())
        server.suspend()
        wait_until(lambda: gateway.health()["status"] != "healthy", 15, "it is told of")
        wait_until(lambda: is_gone(server), 15, "it is ended")
        wait_until(lambda: gateway.health()["status"] == "healthy", 15, "another one is well")
        assert session.pid() != server.pid


def test_sessions_that_do_nothing_sleep_without_a_process_until_they_are_used(
    form: Form, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A call that runs keeps its process, however long it says nothing."""
    with start_gateway(form, [backend()], gateway={"idle_process_timeout": 1.0}) as gateway:

        def running() -> list[int]:
            found = []
            for each in servers(gateway):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends in this moment
                    found += [each.pid] if any(ODD.name in part for part in each.cmdline()) else []
            return found

        caller = Session(gateway)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(caller.call("wait", path=str(tmp_path / "go"))))
        caller_pid = caller.pid()
        thread.start()
        sessions = [Session(gateway) for _ in range(10)]
        pids = {session.pid() for session in sessions}
        assert len(pids) == 10
        wait_until(lambda: not pids & set(running()), 15, "all that did nothing are asleep")
        assert len(running()) <= 2, "the one that runs a call, and the one that is probed"
        assert caller_pid in running()
        (tmp_path / "go").touch()
        thread.join(15)
        assert answers[0].text == str(caller_pid)
        for session in sessions:
            assert session.pid() not in pids, "each is woken with a process of its own"
        wait_until(lambda: len(running()) <= 1, 15, "and asleep again")


def test_sessions_that_nobody_ends_leave_as_many_processes_as_the_pool_allows(start_gateway: StartGateway) -> None:
    with start_gateway("embedded", [backend(pool_size=3)], gateway={"max_overflow": 1}) as gateway:
        sessions = [Session(gateway) for _ in range(40)]

        def is_bounded() -> bool:
            try:
                return len([each for each in servers(gateway) if ODD.name in str(each.cmdline())]) <= 4
            except psutil.NoSuchProcess:  # also of a zombie
                return False

        wait_until(is_bounded, 10, "bounded")
        assert sessions[0].pid() > 0, "repaired when it is used"
        shared = [Session(gateway, can_be_asked=False) for _ in range(200)]
        assert len({session.pid() for session in shared}) == 1
        assert len(servers(gateway)) <= 4 + 2


@pytest.fixture
def everyone(form: Form, start_gateway: StartGateway) -> Iterator[tuple[RunningGateway, list[psutil.Process]]]:
    """A gateway that is about to be killed, with servers that leave only when they are."""
    try:
        with start_gateway(form, [backend("stubborn")], expects_errors=True) as gateway:
            for can_be_asked in (True, False):
                Session(gateway, can_be_asked=can_be_asked).pid()
            found = servers(gateway)
            assert len(found) >= 5
            yield gateway, found
    except AssertionError as error:
        if "exit code -9" not in str(error):
            raise


def test_nothing_is_left_after_kill_9_of_the_launcher(everyone: tuple[RunningGateway, list[psutil.Process]]) -> None:
    gateway, found = everyone
    os.kill(gateway.pid, signal.SIGKILL)
    wait_until(lambda: all(is_gone(process) for process in found), 15, f"left: {found}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_a_server_has_started_ends_with_the_gateway(
    form: Form, number: signal.Signals, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """It is in a session of its own, and nobody's child any more."""
    file = tmp_path / "daemon"
    daemon: psutil.Process | None = None
    try:
        with start_gateway(form, [backend("daemon", str(file))], expects_errors=True) as gateway:
            Session(gateway).pid()
            wait_until(file.exists, 10, "the daemon runs")
            daemon = psutil.Process(int(file.read_text()))
            assert os.getsid(daemon.pid) != os.getsid(gateway.pid)
            if number is signal.SIGKILL:
                os.kill(gateway.pid, number)
                wait_until(lambda: is_gone(daemon), 15, "the daemon is ended")
    except AssertionError as error:
        if number is signal.SIGTERM or "exit code -9" not in str(error):
            raise
    assert daemon is not None
    wait_until(lambda: is_gone(daemon), 15, "the daemon is ended")


def test_a_daemon_without_an_environment_ends_with_the_gateway(form: Form, start_gateway: StartGateway, tmp_path: Path) -> None:
    """No group, no parent and no mark leads to it: whoever has adopted it ends it. In a node that is so at once."""
    file = tmp_path / "daemon"
    with start_gateway(form, [backend("bare daemon", str(file))], expects_errors=True) as gateway:
        Session(gateway).pid()
        wait_until(file.exists, 10, "the daemon runs")
        pid = int(file.read_text())
        wait_until(lambda: not is_marked(pid), 10, "it has left its environment, or is ended already")
    wait_until(lambda: not psutil.pid_exists(pid), 15, "the daemon is ended")


def is_marked(pid: int) -> bool:
    try:
        return "MCP_GATEWAY_GUARD" in psutil.Process(pid).environ()
    except psutil.Error:
        return False


def test_nothing_is_left_after_kill_9_of_the_cell_that_owns_them(start_gateway: StartGateway) -> None:
    with start_gateway("node", [backend("stubborn")], expects_errors=True) as gateway:
        session = Session(gateway)
        found = servers(gateway)
        server = psutil.Process(session.pid())
        cell = server.parent()
        assert cell is not None
        cell.kill()
        wait_until(lambda: all(is_gone(process) for process in found), 15, f"left: {found}")
        answer = wait_until(lambda: call_once_served(session, "pid"), 15, "another cell serves and the session is repaired")
        assert int(answer.text) != server.pid
