"""Tests of servers as child processes, with real ones that behave badly."""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.upstream.pipes import pipe_starts, stdio
from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed
from mcp_gateway.transports.upstream.pipes.process_guard import PROCESS_GUARD
from mcp_gateway.transports.upstream.pipes.stdio import ChildProcess, StdioUpstream, inherited_environment, sums_up
from tests.doubles.gateway_process import is_gone, wait_until
from tests.doubles.patience import patience, until

ODD = Path(__file__).parents[3] / "doubles" / "odd_stdio_server.py"
LEGACY = "2025-11-25"


class Client:
    """One client of one odd server."""

    def __init__(self, *arguments: str, max_message_bytes: int = 4_194_304, **options: Any) -> None:
        command = options.pop("command", (sys.executable, str(ODD), *arguments))
        backend = BackendSettings(name="odd", command=command, **options)
        self.wire = StdioUpstream().connect(ReplicaTarget(backend, 0, max_message_bytes))
        self.session_id: str | None = None

    async def exchange(self, message: Message, timeout_s: float = 15.0) -> Any:
        is_request = isinstance(message, Request)
        request = UpstreamRequest(
            kind=RequestKind.REQUEST if is_request else RequestKind.MESSAGE,
            message=message,
            revision=LEGACY,
            session_id=self.session_id,
            timeout_s=timeout_s,
        )
        return await self.wire.exchange(request, self._on_event)

    async def _on_event(self, message: Message | None, event_id: str | None) -> None:
        return None

    async def open(self) -> None:
        content = {"protocolVersion": LEGACY, "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}
        answer = await self.exchange(Request(b"0", "initialize", json.dumps(content).encode()))
        self.session_id = answer.session_id
        await self.exchange(Notification("notifications/initialized", b""))

    async def call(self, tool: str, timeout_s: float = 15.0, **arguments: Any) -> str:
        content = json.dumps({"name": tool, "arguments": arguments}).encode()
        answer = await self.exchange(Request(b"1", "tools/call", content), timeout_s)
        text: str = json.loads(answer.response.result)["content"][0]["text"]
        return text


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with patience():
            await test()

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    asyncio.run(bounded())
    PROCESS_GUARD.stop()
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    wait_until(lambda: all(map(is_gone, left)), 5, "what was killed has ended")


def test_the_last_words_of_a_server_that_ends_reach_whoever_waits_for_it() -> None:
    async def test() -> None:
        program = "import sys; print('Traceback\\nno licence for', sys.argv[1], '\\n', file=sys.stderr); sys.exit(3)"
        client = Client(command=(sys.executable, "-c", program, "hush-hush"), env={"KEY": "hush-hush"})
        with pytest.raises(UpstreamError) as ended:
            await client.open()
        text = ended.value.failure.text
        assert "has ended with exit status 3: no licence for ***" in text, text
        await client.wire.close()

    run(test)


def test_a_server_gets_its_own_environment_its_folder_and_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")

    async def check() -> None:
        client = Client(env={"LOG_LEVEL": "info", "HOME": "/own"}, cwd=str(tmp_path))
        await client.open()
        environment = json.loads(await client.call("environment"))
        assert (environment["LOG_LEVEL"], environment["HOME"], environment["PATH"]) == ("info", "/own", os.environ["PATH"])
        assert environment["https_proxy"] == "http://127.0.0.1:1"
        assert not {"PROMETHEUS_MULTIPROC_DIR", "DATABASE_PASSWORD"} & environment.keys()
        assert await client.call("where") == str(tmp_path)
        assert json.loads(await client.call("files")) == [0, 1, 2], "no socket of ours"
        await client.wire.close()

    run(check)


def test_only_what_a_server_needs_is_inherited() -> None:
    given = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_RUNTIME_DIR": "/run",
        "NO_PROXY": "*",
        "AWS_SECRET": "x",
        "PATHS": "x",
        "MY_HOME": "x",
    }
    assert set(inherited_environment(given)) == {"PATH", "LC_ALL", "XDG_RUNTIME_DIR", "NO_PROXY"}


def test_a_byte_order_mark_before_the_first_message_is_passed_over() -> None:
    async def body() -> None:
        program = f"import sys; sys.argv[0] = {str(ODD)!r}; sys.stdout.buffer.write(bytes([239, 187, 191])); sys.stdout.flush()"
        client = Client(command=(sys.executable, "-c", f"{program}; exec(open(sys.argv[0]).read())"))
        await client.open()
        await client.wire.close()

    run(body)


def test_a_program_in_the_users_own_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        client = Client(command=("~/python", str(ODD)))
        await client.open()
        await client.wire.close()

    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("HOME", str(tmp_path))
    run(body)


@pytest.mark.parametrize(
    ("command", "cwd", "why"),
    [
        (("/no/such/program",), ".", "'/no/such/program' cannot be started: No such file or directory"),
        ((str(ODD),), ".", "cannot be started: Permission denied"),
        ((sys.executable,), "/no/such/folder", "its folder '/no/such/folder' is not there"),
        (("~/no/such/program",), ".", "'~/no/such/program' cannot be started: No such file or directory"),
        ((sys.executable, str(ODD), "dies"), ".", "the server's process has ended with exit status 4"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), ".", "the server's process was ended by SIGKILL"),
    ],
)
def test_a_command_that_does_not_run_is_told_of_as_what_it_is(
    command: tuple[str, ...], cwd: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its operator reads the whole of it in the log; a client, not where it is on this machine."""

    async def check() -> None:
        client = Client(command=command, cwd=cwd)
        with pytest.raises(UpstreamError) as caught:
            await client.open()
        assert why in caplog.text
        assert PipeClosed(why).told in caught.value.failure.text
        assert "/" not in caught.value.failure.text
        assert not caught.value.fate.was_sent
        await client.wire.close()

    run(check)


def test_after_kill_9_the_open_call_fails_with_the_reason_and_the_next_session_works() -> None:
    async def check() -> None:
        client = Client()
        await client.open()
        pid = int(await client.call("pid"))
        os.kill(pid, signal.SIGSTOP)
        call = asyncio.create_task(client.call("echo"))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(UpstreamError) as caught:
            await call
        assert (caught.value.failure.text, caught.value.fate.was_sent) == ("the server's process was ended by SIGKILL", True)
        with pytest.raises(UpstreamError) as caught:
            await client.call("echo")
        assert (caught.value.fate is Fate.SESSION_LOST, caught.value.fate.was_sent) == (True, False)
        client.session_id = None
        await client.open()
        assert int(await client.call("pid")) != pid
        await client.wire.close()

    run(check)


def test_a_next_try_that_overtakes_the_end_of_the_first_gets_the_process_that_starts_for_it(tmp_path: Path) -> None:
    """As where the owner of the server hears of both from another cell."""
    script = 'echo >> "$0/starts"; until [ -e "$0/go" ]; do sleep 0.02; done; exec "$1" "$2"'
    client = Client(command=("sh", "-c", script, str(tmp_path), sys.executable, str(ODD)))

    async def check() -> None:
        first = asyncio.create_task(client.open())
        await asyncio.sleep(1.2 * pipe_starts.HANDOVER_S)  # a client is not impatient earlier
        again = asyncio.create_task(client.open())
        await asyncio.sleep(0.1 * pipe_starts.HANDOVER_S)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        (tmp_path / "go").touch()
        await again
        assert int(await client.call("pid")) > 0
        assert (tmp_path / "starts").read_text() == "\n"
        await client.wire.close()

    run(check)


def test_a_server_and_a_child_of_its_own_that_will_not_leave_are_killed() -> None:
    async def check() -> None:
        client = Client("stubborn")
        await client.open()
        server = psutil.Process(int(await client.call("pid")))
        (helper,) = server.children()
        await client.wire.close()
        assert is_gone(server)
        await until(lambda: is_gone(helper))

    run(check)


def test_when_a_server_is_killed_the_child_that_it_leaves_behind_is_too() -> None:
    async def check() -> None:
        client = Client("stubborn")
        await client.open()
        server = psutil.Process(int(await client.call("pid")))
        (helper,) = server.children()
        server.kill()
        await until(lambda: is_gone(helper))
        await client.wire.close()

    run(check)


def test_nothing_is_sent_to_a_process_that_is_known_to_have_ended() -> None:
    """Of what was not sent it is certain that it has not run. The child here has left the group, and holds the input open."""

    async def check() -> None:
        child = "exec 3<&0; setsid sleep 30 <&3 >&- 2>&- & wait"
        pipe = ChildProcess(BackendSettings(name="left", command=("sh", "-c", child)), "left", 1000)
        await pipe.open()
        server = next(each for each in psutil.Process().children() if each.cmdline()[:2] == ["sh", "-c"])
        await until(lambda: [each.name() for each in server.children()] == ["sleep"])
        (holder,) = server.children()
        server.kill()
        while psutil.pid_exists(server.pid):
            await asyncio.sleep(0)
        begun: list[bool] = []
        with pytest.raises(PipeClosed, match="ended by SIGKILL"):
            await pipe.send(b"{}", lambda: begun.append(True))
        assert not begun
        holder.kill()
        await pipe.close()

    run(check)


def test_a_server_may_finish_its_last_words_when_its_input_has_ended(tmp_path: Path) -> None:
    async def check() -> None:
        script = f"cat >/dev/null; sleep 0.4; echo '{{}}' && touch {tmp_path}/said"
        pipe = ChildProcess(BackendSettings(name="late", command=("sh", "-c", script)), "late", 1000)
        await pipe.open()
        await pipe.close()
        assert (tmp_path / "said").exists()

    run(check)


def test_who_gets_the_numbers_of_a_servers_files_is_heard() -> None:
    """The server has left its output to a child: it is still open when the server is closed."""

    async def check() -> None:
        loop = asyncio.get_running_loop()
        backend = BackendSettings(name="odd", command=("sh", "-c", "sleep 60 & exec cat"))
        server = ChildProcess(backend, "odd", 1_000)
        await server.open()
        await server.close()
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                ours, theirs = socket.socketpair()
                stack.enter_context(ours)
                stack.enter_context(theirs)
                ours.setblocking(False)
                heard = asyncio.ensure_future(loop.sock_recv(ours, 10))
                await asyncio.sleep(0)
                theirs.send(b"hello")
                assert await asyncio.wait_for(heard, 5) == b"hello"

    run(check)


def test_a_flood_on_standard_error_reaches_the_log_in_part_without_secrets_and_disturbs_no_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def check() -> None:
        client = Client("chatty", env={"TOKEN": "s3cr3t-token"})
        await client.open()
        for _ in range(20):
            assert await client.call("echo", value=1) == '{"value": 1}'
        await client.wire.close()

    run(check)
    lines = [record.getMessage() for record in caplog.records if "stderr" in record.getMessage()]
    assert 10 <= len(lines) <= 101
    assert "s3cr3t" not in caplog.text
    assert all(len(line) < 1_100 for line in lines)


def test_output_that_is_no_message_is_skipped_and_told_of_in_part(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def check() -> None:
        client = Client("noisy")
        await client.open()
        assert await client.call("echo", value=1) == '{"value": 1}'
        await client.wire.close()

    run(check)
    assert "skipped output that is no message: Loading..." in caplog.text
    assert len(caplog.records) < 150


def test_a_server_that_never_reads_costs_each_caller_its_own_deadline_and_can_be_ended() -> None:
    async def check() -> None:
        pipe = ChildProcess(BackendSettings(name="odd", command=(sys.executable, str(ODD), "deaf")), "odd", 4_194_304)
        await pipe.open()
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                while True:
                    await pipe.send(b'{"jsonrpc":"2.0","method":"x","params":{"x":"%b"}}' % (b"x" * 100_000), lambda: None)
                    sent += 1
        assert sent < 10, "nothing piles up for it"
        await pipe.close()

    run(check)


def test_a_line_of_10_mb_fails_the_call_whose_answer_it_is_and_no_other() -> None:
    async def check() -> None:
        client = Client()
        await client.open()
        with pytest.raises(UpstreamError) as caught:
            await client.call("big", size_bytes=10_000_000)
        assert (caught.value.failure.text, caught.value.fate.was_sent) == ("the answer is larger than max_message_bytes", True)
        assert len(await client.call("big", size_bytes=4_000_000)) == 4_000_000
        await client.wire.close()

    run(check)


def test_a_large_message_reaches_a_server_whole_with_the_line_breaks_of_its_json_taken_out() -> None:
    async def check() -> None:
        client = Client()
        await client.open()
        value = "x\n" * 1_000_000
        content = b'{\r\n "name": "echo",\n "arguments": %b }' % json.dumps({"value": value}).encode()
        answer = await client.exchange(Request(b"1", "tools/call", content))
        assert json.loads(json.loads(answer.response.result)["content"][0]["text"]) == {"value": value}
        await client.wire.close()

    run(check)


def test_the_end_of_the_loop_in_the_middle_of_closing_leaves_no_process() -> None:
    pids: list[int] = []

    async def check() -> None:
        client = Client("stubborn")
        await client.open()
        pids.append(int(await client.call("pid")))
        closing = asyncio.create_task(client.wire.close())
        await asyncio.sleep(0.05)
        assert not closing.done()

    asyncio.run(check())
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended before anyone could wait for it
        psutil.Process(pids[0]).wait(5)


def test_a_server_that_raises_is_told_of_in_its_own_last_words_and_its_traceback_is_written_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def check() -> None:
        client = Client("raises", "1", env={"TOKEN": "s3cr3t-token"})
        for _ in range(3):
            await client.open()
            with pytest.raises(UpstreamError) as caught:
                await client.call("echo")
            text = caught.value.failure.text
            assert re.match(
                r"the server's process has ended with exit status 1: ValueError: no answer from \d+ with \*\*\*: x", text
            )
            assert len(text) < 300
        await client.wire.close()

    run(check)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("stderr: Traceback" in line for line in lines) == 1
    assert sum("stderr: ValueError: no answer from" in line for line in lines) == 1
    assert sum("started process" in line for line in lines) == 1
    assert sum("crash loop, next try in" in line for line in lines) == 1, "at the second failure, and then at the fourth"
    assert "s3cr3t" not in caplog.text


def test_what_a_server_says_before_another_end_is_written() -> None:
    """Only what was said before is left out."""
    backend = BackendSettings(name="odd", command=("odd",))
    log = stdio.ServerLog("odd", backend)
    shown: list[str] = []
    log.write = lambda what, text: shown.append(text)  # type: ignore[method-assign]

    async def check() -> None:
        for pid, lines in [(1, [b"at 12:01", b"port 80 is taken"]), (2, [b"at 12:02", b"port 80 is taken", b"disk full"])]:
            process = stdio._ProcessLog(log)
            process.begin(pid)
            for line in lines:
                process.write_error(line)
            process.end()
        assert process.last_words == "disk full"

    asyncio.run(check())
    assert shown == ["at 12:01", "port 80 is taken", "disk full"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["Traceback (most recent call last):", '  File "x.py", line 1', "ValueError: no"], ["ValueError: no"]),
        (
            ["Error: Cannot find module 'x'", "    at node:internal {", "  code: 'X'", "}", "", "Node.js v20.1.0"],
            ["Error: Cannot find module 'x'"],
        ),
        (["", "   ", "\t", "--", "}"], []),
    ],
)
def test_the_line_that_sums_an_error_up_is_found(lines: list[str], words: list[str]) -> None:
    assert [line for line in lines if sums_up(line)][-1:] == words
