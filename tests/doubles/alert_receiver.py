"""A webhook in the test's own process: keeps the alerts whose signature is valid."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "the secret of the test"


class AlertReceiver:
    """alerts: in the order of their arrival. forged: how many came with a signature that is not valid."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.forged = 0
        self.url = ""

    def take(self, headers: Any, body: bytes) -> None:
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.new(SECRET.encode(), content, hashlib.sha256).digest()).decode()
        if headers["webhook-signature"] == f"v1,{signature}":
            self.alerts.append(json.loads(body))
        else:
            self.forged += 1


@contextmanager
def start_alert_receiver() -> Iterator[AlertReceiver]:
    """Listen for the length of the `with` block."""
    receiver = AlertReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Not on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
