"""Runs `mcp-gateway serve` for a test as a user would, with a configuration file, and proves that nothing is left of it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.doubles.http_parser import http_parser_setting
from tests.doubles.ports import free_port

Form = Literal["embedded", "node", "two cells"]
Transport = Literal["streamable_http", "http_sse", "websocket"]
FORMS: tuple[Form, ...] = ("embedded", "node", "two cells")

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 15.0
_Value = TypeVar("_Value")


class Entrance:
    """Where clients come in.

    url: without a path. transport: what `endpoint` is an address of.
    """

    def __init__(self, url: str, form: str) -> None:
        self.url = url
        self.form = form
        self.transport: Transport = "streamable_http"
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)

    def endpoint(self, backend: str = "") -> str:
        """Where clients of `transport` connect to; `python_client.connected` knows each by its address."""
        if self.transport == "streamable_http":
            return f"{self.url}/mcp/servers/{backend}" if backend else f"{self.url}/mcp"
        query = f"?backend={backend}" if backend else ""
        return f"{self.url}/mcp/sse/connect{query}" if self.transport == "http_sse" else f"ws{self.url[4:]}/mcp/ws{query}"


class RunningGateway(Entrance):
    """A gateway that serves.

    log:        its standard error so far.
    credential: with which metrics and health are read, where not everybody may.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, form: Form, directory: Path, admin_port: int) -> None:
        super().__init__(url, form)
        self._process = process
        self._directory = directory
        self._admin_port = admin_port
        self._is_told_to_end = False
        self.credential = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state_dir(self) -> Path:
        return self._directory / "state"

    @property
    def config_path(self) -> Path:
        return self._directory / "gateway.toml"

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()

    def errors(self) -> list[str]:
        """Lines of the log that tell of a defect: level error or worse, a message that an actor does not know, or a traceback
        that is not a stdio server's own.
        """
        signs = ('"level": "error"', '"level": "critical"', "stray mail", "Traceback")
        own = (line for line in self.log.splitlines() if not ("upstream.pipes.stdio" in line and ": stderr: " in line))
        return [line for line in own if any(sign in line for sign in signs)]

    @property
    def _shown(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.credential}"} if self.credential else {}

    def health(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{self.url}/health", headers=self._shown), timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:  # 503 has the same body
            found = json.load(error)
        return found

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """{(sample name, labels): value} of one scrape, read by the parser of the Prometheus client."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/metrics", headers=self._shown), timeout=5) as answer:
            text = answer.read().decode()
        families = list(text_string_to_metric_families(text))
        samples = [sample for family in families for sample in family.samples]
        found = {(sample.name, frozenset(sample.labels.items())): float(sample.value) for sample in samples}
        assert len(found) == len(samples), "the same sample stands twice in the exposition"
        return found

    def openmetrics(self) -> str:
        """One scrape as OpenMetrics, which has exemplars."""
        accept = {"Accept": "application/openmetrics-text; version=1.0.0", **self._shown}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/metrics", headers=accept), timeout=5) as answer:
            return str(answer.read().decode())

    def metric_sum(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name that carry these labels."""
        return sum(
            value for (sample, shown), value in self.metrics().items() if sample == name and labels.items() <= dict(shown).items()
        )

    def restart_count(self) -> float:
        """Restarts of every supervised child since the start."""
        return self.metric_sum("mcp_gateway_restarts_total")

    def status(self) -> dict[str, Any]:
        """`mcp-gateway status --json`; not for the embedded form."""
        exit_code, output = self.admin("status", "--json")
        assert exit_code == 0, output
        found: dict[str, Any] = json.loads(output)
        return found

    def cell_pids(self) -> list[int]:
        """The processes of its cells; not for the embedded form."""
        rows, found = list(self.status()["tree"]), []
        while rows:
            row = rows.pop()
            found += [row["pid"]] if row["name"].startswith("cell/") and row["name"].count("/") == 1 else []
            rows += row["children"]
        return found

    def admin(self, command_name: str, *arguments: str) -> tuple[int, str]:
        """Run an admin command: (exit code, its output, or its errors where it failed); not for the embedded form."""
        options = ["--state-dir", str(self.state_dir), "--admin-port", str(self._admin_port)]
        command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", command_name, *options, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr

    def terminate(self) -> None:
        """Tell it to end, once: a second signal would cut its drain short."""
        if not self._is_told_to_end:
            self._is_told_to_end = True
            self._process.send_signal(signal.SIGTERM)

    def processes(self) -> list[psutil.Process]:
        """Every process of this gateway now."""
        with suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(self.pid)
            return [launcher, *launcher.children(recursive=True)]
        return []

    def memory_bytes(self) -> int:
        """Resident memory of all its processes."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


@contextmanager
def start_gateway(
    directory: Path,
    form: Form,
    backends: Sequence[Mapping[str, Any]],
    *,
    routes: Sequence[Mapping[str, Any]] = (),
    expects_errors: bool = False,
    **tables: Mapping[str, Any],
) -> Iterator[RunningGateway]:
    """Serve for the length of the `with` block, then end it by SIGTERM: it must exit with 0, leave no process and log no error.

    directory:      an empty one, for its configuration, state and log.
    tables:         of the configuration file by name ("gateway", "limits"); inner tables as dictionaries.
    expects_errors: the test makes the gateway log errors on purpose.
    """
    admin_port = free_port()
    gateway_table = {"cells": 2 if form == "two cells" else 1, "state_dir": str(directory / "state")}
    settings: dict[str, Any] = {
        **tables,
        "gateway": {"port": 0, "drain_timeout": 1.0, **http_parser_setting(), **tables.get("gateway", {}), **gateway_table},
        "actor_system": {"admin_port": admin_port},
        "backends": list(backends),
        "routes": list(routes),
    }
    (directory / "gateway.toml").write_text("\n".join(_toml_lines(settings)) + "\n")
    command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "serve", "--config", str(directory / "gateway.toml")]
    command += ["--embedded"] if form == "embedded" else []
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=directory)
    seen: dict[int, psutil.Process] = {}
    try:
        url = _printed_url(process, directory / "log")
        running = RunningGateway(process, url, form, directory, admin_port)
        yield running
        seen.update((each.pid, each) for each in running.processes())
        running.terminate()
        exit_code = process.wait(_STOP_TIMEOUT_S)
        assert exit_code == 0, f"exit code {exit_code}: {running.log[-2000:]}"
        left = [each for each in seen.values() if _still_runs(each)]
        assert not left, f"left running: {left}"
        if not expects_errors:
            assert running.errors() == [], running.errors()
    finally:
        with suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(process.pid)
            seen.update((each.pid, each) for each in (launcher, *launcher.children(recursive=True)))
        for each in seen.values():
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()


def wait_until(check: Callable[[], _Value], timeout_s: float, what: str) -> _Value:
    """The first true value of the check.

    Raises: AssertionError after `timeout_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)
    return value


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nobody listens and which nobody else takes meanwhile: connecting to it is refused at once."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def _printed_url(process: subprocess.Popen[str], log_path: Path) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
    line = process.stdout.readline() if ready else ""
    assert line.startswith("mcp-gateway listening on http://"), f"{line!r} {process.poll()=} {log_path.read_text()[-2000:]}"
    return line.split()[-1]


def _still_runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _toml_lines(table: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """A TOML document: JSON's strings, numbers, booleans and arrays are TOML's as well; only tables differ."""
    tables = {key: value for key, value in table.items() if _is_table(value)}
    for key, value in table.items():
        if key not in tables:
            yield f"{key} = {json.dumps(value)}"
    for key, value in tables.items():
        path = f"{name}.{key}" if name else key
        for each in [value] if isinstance(value, Mapping) else value:
            yield f"[{path}]" if isinstance(value, Mapping) else f"[[{path}]]"
            yield from _toml_lines(each, path)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and all(isinstance(each, Mapping) for each in value))


def is_continuous_integration() -> bool:
    return os.environ.get("CI", "").lower() == "true"
