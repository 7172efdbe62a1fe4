"""Runs `mcp-gateway serve` as a user would, in a process of its own, and ends everything that it started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.doubles.http_parser import with_http_parser
from tests.doubles.ports import free_port

DOUBLES = Path(__file__).parent
_ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.close(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""
STAND_IN = "stand_in_cell:make_cell"


def wait_until(is_true: Callable[[], object], timeout_s: float, what: str) -> Any:
    """Wait for a true value and return it; an error of the check counts as not yet."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if value := is_true():
                return value
        except (
            OSError,
            AssertionError,
            KeyError,
            ValueError,
            http.client.HTTPException,
            psutil.NoSuchProcess,
            subprocess.TimeoutExpired,
        ):
            pass
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def is_gone(process: psutil.Process) -> bool:
    """Whether the process has ended; a zombie that init has not collected yet counts."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run_command(*arguments: str, env: dict[str, str] | None = None, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Run `mcp-gateway` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", *arguments],
        env=_environment(env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(DOUBLES), **(more or {})}


class GatewayProcess:
    """A gateway that runs. Use as a context manager; `cell_factory=None` takes the real cell.

    arguments: further arguments of `serve`.
    settings: what the configuration file says, "" for the demo server; None for none.
    file_limit: file descriptors that each of its processes may have; None leaves the limit as it is.
    stdout: a descriptor that its output goes to; otherwise the address is read from it.
    terminal: a descriptor of what shall be its controlling terminal.
    """

    def __init__(
        self,
        state_dir: Path,
        *arguments: str,
        cell_factory: str | None = STAND_IN,
        env: dict[str, str] | None = None,
        settings: str | None = "",
        file_limit: int | None = None,
        stdout: int = subprocess.PIPE,
        terminal: int | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.admin_port = free_port()
        self.url = ""
        self._everyone: dict[int, psutil.Process] = {}
        config = state_dir.with_suffix(".toml")
        if settings is not None:
            config.write_text(with_http_parser(settings or '[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'))
        factory = [] if cell_factory is None else ["--cell-factory", cell_factory]
        file = [] if settings is None else ["--config", str(config)]
        options = [*file, "--state-dir", str(state_dir), "--admin-port", str(self.admin_port), "--port", "0"]
        limit = [] if file_limit is None else ["prlimit", f"--nofile={file_limit}:{file_limit}"]
        on_terminal = [] if terminal is None else [sys.executable, "-c", _ON_A_TERMINAL, str(terminal)]
        self.started_s = time.monotonic()
        self.error_path = state_dir.with_suffix(".err")
        with self.error_path.open("a") as errors:  # beside that of another gateway with the same state directory
            self.process = subprocess.Popen(
                [
                    *limit,
                    *on_terminal,
                    sys.executable,
                    "-m",
                    "mcp_gateway.scripts.command_line",
                    "serve",
                    *options,
                    *factory,
                    *arguments,
                ],
                env=_environment(env),
                stdout=stdout,
                stderr=errors,
                text=True,
                pass_fds=() if terminal is None else (terminal,),
            )

    def __enter__(self) -> GatewayProcess:
        try:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line.startswith(("mcp-gateway listening on http://", "mcp-gateway listening on https://")), (line, self.errors)
        except BaseException:
            self.__exit__()
            raise
        self.start_s = time.monotonic() - self.started_s
        self.url = line.split()[-1]
        self.note_processes()
        return self

    def __exit__(self, *_: object) -> None:
        self.note_processes()
        for process in [*self._everyone.values()]:
            if not is_gone(process):
                process.kill()
        self.process.kill()
        self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def errors(self) -> str:
        return self.error_path.read_text()

    # ---- processes

    def note_processes(self) -> list[psutil.Process]:
        """The launcher and everything below it now; all that were ever noted are ended with the gateway."""
        try:
            launcher = psutil.Process(self.process.pid)
            now = [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            now = []
        now = [process for process in now if not is_gone(process)]
        self._everyone.update((process.pid, process) for process in now)
        return now

    def left_over(self) -> list[psutil.Process]:
        """Processes that were noted at any time and still run."""
        return [process for process in self._everyone.values() if not is_gone(process)]

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 10) -> int:
        """Send the signal to the launcher and return its exit code."""
        self.note_processes()
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def rows(self) -> dict[str, dict[str, Any]]:
        """{name: row} of the supervision tree."""
        return {row["name"]: row for row in _flat(self.status()["tree"])}

    def pid(self, name: str) -> int:
        """Of a process that runs; while one is being started again it has none, which `wait_until` takes for not yet."""
        pid: int | None = self.rows()[name]["pid"]
        assert pid is not None, f"{name} has no process now"
        return pid

    def wait_for_another(self, name: str, old_pid: int, timeout_s: float) -> dict[str, dict[str, Any]]:
        """{name: row} as soon as `name` runs in another process than the old one."""

        def runs_again() -> dict[str, dict[str, Any]] | None:
            rows = self.rows()
            return rows if rows[name]["pid"] not in (None, old_pid) else None

        rows: dict[str, dict[str, Any]] = wait_until(runs_again, timeout_s, f"{name} runs again")
        return rows

    # ---- conversations

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, "--state-dir", str(self.state_dir), "--admin-port", str(self.admin_port))

    def get(self, path: str, timeout_s: float = 3) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=timeout_s) as answer:
            return json.load(answer)

    def serves(self) -> bool:
        try:
            return bool(self.get("/pid", timeout_s=0.5))
        except OSError:
            return False


def _flat(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield row
        yield from _flat(row["children"])
