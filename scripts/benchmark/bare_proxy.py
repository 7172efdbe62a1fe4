"""The yardstick of the benchmark: one Tornado handler and one aiohttp session, and nothing else.

No validation, no limits, no sessions, no metrics: what Python with the gateway's own HTTP stack can reach at best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import Any

import aiohttp
import tornado.httpserver
import tornado.netutil
import tornado.web

_CONNECTION_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
_WHOLE_BYTES = 65_536
"""What is longer, or of no known length, is passed on as it comes."""
_PASSED_BACK = ("Content-Type", "Mcp-Session-Id")


class ProxyHandler(tornado.web.RequestHandler):
    """Repeats each POST to the backend and its answer to the client."""

    def initialize(self, session: aiohttp.ClientSession, backend: str) -> None:
        self._session = session
        self._backend = backend

    async def post(self) -> None:
        headers = {name: value for name, value in self.request.headers.get_all() if name.lower() not in _CONNECTION_HEADERS}
        async with self._session.post(self._backend, data=self.request.body, headers=headers) as answer:
            self.set_status(answer.status)
            for name in _PASSED_BACK:
                if name in answer.headers:
                    self.set_header(name, answer.headers[name])
            if answer.content_length is not None and answer.content_length < _WHOLE_BYTES:
                self.finish(await answer.read())
                return
            if answer.content_length is not None:
                self.set_header("Content-Length", str(answer.content_length))
            async for part in answer.content.iter_any():
                self.write(part)
                await self.flush()

    def compute_etag(self) -> None:
        """None: the gateway hashes no bodies either."""

    def log_exception(self, *error: Any) -> None:
        """Silent: a failed request shows in the benchmark's own count."""


async def serve(port: int, backend: str) -> None:
    """Listen on loopback until SIGTERM or Ctrl-C; prints one JSON line `{"port": N}`."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        routes = [(r"/mcp", ProxyHandler, {"session": session, "backend": backend})]
        application = tornado.web.Application(routes, log_function=lambda handler: None)
        server = tornado.httpserver.HTTPServer(application)
        sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
        server.add_sockets(sockets)
        print(json.dumps({"port": sockets[0].getsockname()[1]}), flush=True)
        await stopped.wait()
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--backend", required=True, help="URL of the MCP endpoint behind it")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.backend))


if __name__ == "__main__":
    main()
