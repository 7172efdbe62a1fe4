"""The load of the benchmark: one `echo` call, made by wrk as fast as it goes and by a client that checks every answer."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import threading
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_TIMEOUT_S = 10.0
_CHECK_INTERVAL_S = 0.25
_MAX_SESSIONS = 32


class WrongAnswer(Exception):
    """A candidate answered something else than the echo of what it was sent."""


@attrs.frozen(kw_only=True)
class Measurement:
    """What wrk saw in one run.

    requests:   completed. failed: answers outside 2xx, socket errors, timeouts of wrk, and wrong bodies seen by the checker.
    latency_ms: {"p50", "p99", "max": milliseconds}.
    cpu_s:      processor time that the candidate took meanwhile.
    """

    requests: int
    duration_s: float
    failed: int
    latency_ms: dict[str, float]
    cpu_s: float = 0.0

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.duration_s

    @property
    def cpu_us(self) -> float:
        """Of one request."""
        return self.cpu_s / max(1, self.requests) * 1e6


class CheckedClient:
    """An MCP client of a few lines: one connection, and every answer is compared with what was sent."""

    def __init__(self, port: int, *, legacy: bool, tool: str = "echo") -> None:
        self._tool = tool
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        self._legacy = legacy
        self._ids = count(1)
        self.session_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()

    def open_session(self) -> None:
        """`initialize` and `notifications/initialized`, in the legacy era only.

        Raises: WrongAnswer; OSError and http.client.HTTPException where nobody answers.
        """
        if not self._legacy:
            return
        opening = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        status, headers, body = self._post({"method": "initialize", "params": opening, "id": next(self._ids)})
        if status != 200 or "result" not in body:
            raise WrongAnswer(f"initialize: {status} {body}")
        self.session_id = headers.get("mcp-session-id")
        status, _, body = self._post({"method": "notifications/initialized"})
        if status != 202:
            raise WrongAnswer(f"notifications/initialized: {status} {body}")

    def call_echo(self, message: str) -> None:
        """One tools/call.

        Raises: WrongAnswer; OSError and http.client.HTTPException where nobody answers.
        """
        request_id = f"check-{next(self._ids)}"
        params = echo_params(message, legacy=self._legacy) | {"name": self._tool}
        request = {"method": "tools/call", "params": params, "id": request_id}
        status, _, body = self._post(request)
        content = body.get("result", {}).get("content")
        if status != 200 or body.get("id") != request_id or content != [{"type": "text", "text": message}]:
            raise WrongAnswer(f"tools/call {request_id}: {status} {body}")

    def list_tools(self, cursor: str | None = None) -> tuple[int, str | None]:
        """(how many tools one page has, the cursor of the next one).

        Raises: WrongAnswer; OSError and http.client.HTTPException where nobody answers.
        """
        params: dict[str, Any] = ({} if self._legacy else {"_meta": _META}) | ({} if cursor is None else {"cursor": cursor})
        status, _, body = self._post({"method": "tools/list", "params": params, "id": next(self._ids)})
        result = body.get("result", {})
        if status != 200 or "tools" not in result or "io.mcp-gateway/missingBackends" in result.get("_meta", {}):
            raise WrongAnswer(f"tools/list: {status} {str(body)[:500]}")
        return len(result["tools"]), result.get("nextCursor")

    def _post(self, message: dict[str, Any]) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
        headers = call_headers(legacy=self._legacy)
        if message["method"] == "initialize":
            del headers["MCP-Protocol-Version"]
        if not self._legacy:
            headers["Mcp-Method"] = message["method"]
            headers["Mcp-Name"] = message["params"].get("name", "")
        if self.session_id is not None:
            headers["Mcp-Session-Id"] = self.session_id
        self._connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **message}), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.headers.get_content_type() == "text/event-stream":
            body = b"".join(line[5:] for line in body.splitlines() if line.startswith(b"data:"))
        try:
            decoded = json.loads(body) if body else {}
        except ValueError:
            raise WrongAnswer(f"{message['method']}: {answer.status} {body[:200]!r}") from None
        return answer.status, answer.headers, decoded if isinstance(decoded, dict) else {}


def echo_params(message: str, *, legacy: bool) -> dict[str, Any]:
    params: dict[str, Any] = {"name": "echo", "arguments": {"message": message}}
    return params if legacy else params | {"_meta": _META}


def call_headers(*, legacy: bool) -> dict[str, str]:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Standard Request Headers"; 2025-11-25, basic/transports."""
    common = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if legacy:
        return common | {"MCP-Protocol-Version": LEGACY}
    return common | {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}


def wrk_script(*, legacy: bool, session_ids: list[str]) -> str:
    """The Lua program for wrk: each request has an id of its own, sessions take turns, and the end is one JSON line.

    A client must not have two open requests of one id, and wrk has as many open requests as connections.
    """
    params = echo_params("hello, gateway", legacy=legacy)
    template = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": params})
    head, tail = template.split('"id": 0', 1)
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in call_headers(legacy=legacy).items())
    return f"""\
wrk.method = "POST"
{headers}
local head, tail = [[{head}"id": ]], [[{tail}]]
local sessions = {{{", ".join(json.dumps(session_id) for session_id in session_ids)}}}
local number = 0
function request()
  number = number + 1
  if #sessions > 0 then wrk.headers["Mcp-Session-Id"] = sessions[number % #sessions + 1] end
  return wrk.format(nil, nil, nil, head .. number .. tail)
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {{"requests": %d, "microseconds": %d, "failed": %d, "p50": %f, "p99": %f, "max": %f}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
"""


def run_wrk(
    port: int, *, connections: int, seconds: int, legacy: bool, scratch: Path, opened_at: int | None = None
) -> Measurement:
    """Load one candidate while a checking client calls it four times a second. wrk knows whole seconds only.

    opened_at: the port where the load's sessions are opened, if that is another one.

    Raises: WrongAnswer where a session can't be opened; RuntimeError where wrk fails.
    """
    with CheckedClient(port, legacy=legacy) as checker:
        checker.open_session()
        session_ids = _open_sessions(opened_at or port, min(connections, _MAX_SESSIONS)) if legacy else []
        script = scratch / "load.lua"
        script.write_text(wrk_script(legacy=legacy, session_ids=session_ids))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script)]
        command.append(f"http://127.0.0.1:{port}/mcp")
        with _Checking(checker) as checking:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    found = [line.removeprefix("RESULT ") for line in finished.stdout.splitlines() if line.startswith("RESULT ")]
    if finished.returncode or not found:
        raise RuntimeError(f"wrk failed: {finished.stdout}{finished.stderr}")
    result = json.loads(found[0])
    return Measurement(
        requests=result["requests"],
        duration_s=result["microseconds"] / 1e6,
        failed=result["failed"] + len(checking.failures),
        latency_ms={key: result[key] for key in ("p50", "p99", "max")},
    )


def _open_sessions(port: int, session_count: int) -> list[str]:
    session_ids = []
    for _ in range(session_count):
        with CheckedClient(port, legacy=True) as client:
            client.open_session()
            if client.session_id is not None:
                session_ids.append(client.session_id)
    return session_ids


class _Checking:
    """A thread that calls `echo` now and then, with a message of its own each time, while a load runs."""

    def __init__(self, client: CheckedClient) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(_CHECK_INTERVAL_S):
            number += 1
            try:
                self._client.call_echo(f"check {number} é\n")
            except (WrongAnswer, OSError, http.client.HTTPException) as failure:
                self.failures.append(repr(failure))


def find_wrk() -> str:
    """What `wrk --version` says, after an attempt to install it from Debian where it is missing and we may.

    Raises: SystemExit with one clear line.
    """
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], stdout=subprocess.DEVNULL, check=False)
    if shutil.which("wrk") is None:
        raise SystemExit("bench: wrk is missing; install it (Debian: apt-get install wrk)")
    shown = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(shown.split()[:2])
