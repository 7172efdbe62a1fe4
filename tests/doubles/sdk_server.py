"""Starts a server of the official SDK for a test, as a rule `everything_server.py`, and always ends it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tests.doubles.ports import free_port

_PROGRAM = "tests.doubles.everything_server"
_ROOT = Path(__file__).parents[2]
_START_TIMEOUT_S = 60.0


class SdkServer:
    """A running server of the official SDK. It can be killed, and started again on the same port.

    name:    what it calls itself. program: the module that is run.
    url:     its MCP endpoint, as a replica's address of the gateway; the same after `restart`.
    """

    def __init__(self, name: str, arguments: list[str], path: str, program: str = _PROGRAM) -> None:
        self.name = name
        self._program = program
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._path = path

    @property
    def url(self) -> str:
        scheme = {"/sse": "sse+http", "/ws": "ws"}.get(self._path, "http")
        return f"{scheme}://127.0.0.1:{self.port}{self._path}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it listens.

        Raises: AssertionError when it ends early or has not listened within 20 s.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._program, *self._arguments, "--port", str(self.port)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            ready, _, _ = select.select([self._process.stdout], [], [], _START_TIMEOUT_S)
            line = self._process.stdout.readline() if ready else b""
            assert line, f"the SDK server did not start within {_START_TIMEOUT_S:g} s (exit code {self._process.poll()})"
            self.port = json.loads(line)["port"]
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it now, as a crash would (SIGKILL to its process group)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in an orderly way (SIGTERM); SIGKILL after 5 s."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: it accepts connections (the kernel does) and answers nothing, until `resume`."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same port, with all sessions and counters forgotten."""
        self.kill()
        self.start()

    def counters(self) -> dict[str, Any]:
        """What happened inside: `calls`, `started`, `cancelled`, `finished`, `levels`, `watched`, `pid`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counters", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 5.0) -> dict[str, Any]:
        """Wait until the counters meet the condition.

        Raises: AssertionError with the last counters after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not condition(counters := self.counters()):
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {counters}"
            time.sleep(0.02)
        return counters

    def _end(self, first: signal.Signals) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        for chosen in (first, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, chosen)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def start_sdk_server(
    *,
    name: str = "everything",
    era: Literal["both", "legacy", "modern"] = "both",
    stateless: bool = False,
    json_response: bool = False,
    page_size: int = 0,
    extra_tools: int = 0,
    midway: bool = False,
    tasks: bool = False,
    apps: bool = False,
    transport: Literal["streamable-http", "sse", "websocket"] = "streamable-http",
) -> Iterator[SdkServer]:
    """Run a server with the official Python SDK for the length of the `with` block.

    era:         which revisions it knows: the SDK's own both, or one era alone.
    stateless:   legacy requests without sessions. json_response: plain JSON instead of SSE answers.
    page_size:   tools in one page of `tools/list`; 0: all in one. extra_tools: how many more tools than the usual ones.
    midway:      with a tool that counts its run and then asks its client.
    tasks:       with tasks, in the form of each era.
    apps:        with a tool that has an interface.
    """
    arguments = ["--name", name, "--era", era, "--transport", transport]
    arguments += ["--page-size", str(page_size), "--extra-tools", str(extra_tools)]
    arguments += ["--stateless"] * stateless + ["--json-response"] * json_response + ["--midway"] * midway
    arguments += ["--tasks"] * tasks + ["--apps"] * apps
    server = SdkServer(name, arguments, {"streamable-http": "/mcp", "sse": "/sse", "websocket": "/ws"}[transport])
    server.start()
    try:
        yield server
    finally:
        server.stop()
