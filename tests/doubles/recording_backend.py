"""A modern MCP server over HTTP that answers every call at once and keeps what it was sent, headers included."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.doubles.ports import free_port


class RecordingBackend:
    """calls: (headers with lower-case names, message) of each tools/call.

    delay_s, status: how the next calls, and requests to read, are answered.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.delay_s = 0.0
        self.status = 200
        self.url = ""
        self.port = free_port()

    def answer(self, headers: dict[str, str], message: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        method, request_id = message.get("method"), message.get("id")
        if method == "resources/read":
            time.sleep(self.delay_s)
            if self.status != 200:
                return self.status, {}
            result: dict[str, Any] = {"contents": [{"uri": "test://r", "text": "read"}], "resultType": "complete"}
        elif method == "tools/call":
            self.calls.append((headers, message))
            time.sleep(self.delay_s)
            if self.status != 200:
                return self.status, {}
            result = {"content": [{"type": "text", "text": "done"}], "isError": False, "resultType": "complete"}
        elif method == "server/discover":
            capabilities = {"tools": {}}
            result = {
                "supportedVersions": ["2026-07-28"],
                "capabilities": capabilities,
                "serverInfo": {"name": "r", "version": "1"},
            }
        elif method == "tools/list":
            result = {"tools": [{"name": "work", "inputSchema": {"type": "object"}}]}
        else:
            return 404, {"jsonrpc": "2.0", "id": request_id, "error": {"code": -32601, "message": "no such method"}}
        return 200, {"jsonrpc": "2.0", "id": request_id, "result": result}


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Stop, and leave no connection: one that is kept alive would be served for ever."""
        self.shutdown()
        self.server_close()
        for each in list(self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def start_recording_backend(backend: RecordingBackend | None = None) -> Iterator[RecordingBackend]:
    """Listen for the length of the `with` block; a backend that has listened before does so on its old port."""
    recording = backend or RecordingBackend()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = recording.answer(headers, body)
            content = json.dumps(answer).encode() if answer else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Not on the test's output."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    server = _Server(("127.0.0.1", recording.port), Handler)
    recording.port = server.server_port
    recording.url = f"http://127.0.0.1:{recording.port}/mcp"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield recording
    finally:
        server.end()
        thread.join(5)
