"""An MCP server without dependencies whose one tool, `where`, tells what it was started with, or which headers it was sent.

`telling_server.py [ARGS]` speaks stdio; `telling_server.py --http PORT` serves Streamable HTTP at /mcp and HTTP+SSE at /sse.
"""

from __future__ import annotations

import http.server
import json
import os
import queue
import sys
import uuid
from typing import Any

TOOLS = [{"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}} for name in ("where", "other")]
CHANNELS: dict[str, queue.Queue[dict[str, Any]]] = {}


def answer(message: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    method = message["method"]
    results: dict[str, dict[str, Any]] = {"ping": {}, "tools/list": {"tools": TOOLS}}
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        information = {"name": "telling", "version": "1"}
        results[method] = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": information}
    elif method == "tools/call":
        results[method] = {"content": [{"type": "text", "text": json.dumps({"tool": message["params"]["name"], **facts})}]}
    outcome = {"result": results[method]} if method in results else {"error": {"code": -32601, "message": "no such method"}}
    return {"jsonrpc": "2.0", "id": message["id"], **outcome}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/mcp"):
            facts = {"path": self.path, "headers": dict(self.headers.items())}
            self.say(200, json.dumps(answer(message, facts)).encode()) if "id" in message else self.say(202)
        elif self.path.startswith("/messages"):
            if "id" in message:
                CHANNELS[self.path.rpartition("=")[2]].put(
                    answer(message, {"path": "/sse", "headers": dict(self.headers.items())})
                )
            self.say(202)
        else:
            self.say(405)

    def do_GET(self) -> None:
        if self.path != "/sse":
            self.say(405)
            return
        key, channel = uuid.uuid4().hex, queue.Queue[dict[str, Any]]()
        CHANNELS[key] = channel
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(f"event: endpoint\ndata: /messages?id={key}\n\n".encode())
            while True:
                self.wfile.write(b"event: message\ndata: " + json.dumps(channel.get(timeout=60)).encode() + b"\n\n")
        except (OSError, queue.Empty):
            pass

    def do_DELETE(self) -> None:
        self.say(405)


def main() -> None:
    if sys.argv[1:2] == ["--http"]:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
    facts = {"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            print(json.dumps(answer(message, facts)), flush=True)


if __name__ == "__main__":
    main()
