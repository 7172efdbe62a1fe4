"""The clients of the benchmark notice an answer that is wrong, and a gateway that goes away."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import pytest

from mcp_gateway.scripts.benchmark.bench_callers import WebSocketCaller
from mcp_gateway.scripts.benchmark.bench_load import WrongAnswer
from mcp_gateway.scripts.benchmark.bench_sockets import NotServed


def _frame(text: bytes) -> bytes:
    return b"\x81" + (bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")) + text


def served(head: bytes, *frames: bytes) -> tuple[int, Callable[[], None]]:
    """(port, wait for its end) of a server that takes one client and its call, says this, whatever they are, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(65_536)
            client.sendall(head)
            client.recv(65_536)  # the call
            client.sendall(b"".join(frames))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], lambda: thread.join(10)


_OPEN = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
_PING = b"\x89\x00"


def answer(text: str) -> bytes:
    return _frame(json.dumps({"result": {"content": [{"type": "text", "text": text}]}}, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([answer("hello")], None),
        ([_PING, answer("hello")], None),
        ([_frame(b'{"padding":"' + b"x" * 300 + b'","text":"hello"}')], None),
        ([answer("hullo")], WrongAnswer),
        ([], NotServed),
        ([b"\x81\x7e\x00"], NotServed),
    ],
)
def test_a_call_ends_with_the_right_answer_or_with_an_error(frames: list[bytes], error: type[Exception] | None) -> None:
    port, ended = served(_OPEN, *frames)
    caller = WebSocketCaller(port)
    try:
        if error is None:
            caller.call()
        else:
            with pytest.raises(error):
                caller.call()
    finally:
        caller.close()
        ended()


def test_a_refused_handshake_is_no_connection() -> None:
    port, ended = served(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    with pytest.raises(NotServed):
        WebSocketCaller(port)
    ended()
