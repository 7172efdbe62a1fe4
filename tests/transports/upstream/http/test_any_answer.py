"""Whatever a server answers over HTTP: the call ends at once, in a documented way, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS
from mcp_gateway.transports.protocol.mcp.revisions import is_modern
from tests.doubles.patience import on_loop
from tests.doubles.scripted_http import LEGACY, MODERN, OK, Seen, ask, call, reply, serving

_AT_ONCE_S = 4.0  # nothing here waits for a deadline, which is three times as late
_DEADLINE_S = 12.0

_leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from([7, "7", "2.0", {}, {"code": 1}])
_any_json = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)
_content = _any_json.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
_FRAMES = ("length", "chunked", "until closed", "too short", "events", "one event", "half an event")


_Script = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


def _framed(status: int, content_type: str, frame: str, content: bytes) -> _Script:
    if frame in ("events", "one event", "half an event"):
        content_type = "text/event-stream"
        event = b"".join(b"data: %b\n" % line for line in content.splitlines() or [b""])
        content = {"events": event + b"\n" + event + b"\n", "one event": event + b"\n", "half an event": event}[frame]
    head = [f"HTTP/1.1 {status} Any", f"Content-Type: {content_type}"]
    body = content
    if frame == "chunked":
        head.append("Transfer-Encoding: chunked")
        body = (b"%x\r\n%b\r\n" % (len(content), content) if content else b"") + b"0\r\n\r\n"
    elif frame != "until closed":
        head.append(f"Content-Length: {len(content) + (5 if frame == 'too short' else 0)}")
    else:
        head.append("Connection: close")

    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        if frame in ("until closed", "too short"):
            writer.close()

    return script


@given(
    status=st.integers(200, 599) | st.sampled_from([200, 200, 202, 400, 404, 500, 600, 999]),
    content_type=st.sampled_from(["application/json", "text/event-stream", "text/html", "x", ""]),
    frame=st.sampled_from(_FRAMES),
    content=_content,
    revision=st.sampled_from([LEGACY, MODERN]),
    has_session=st.booleans(),
    kind=st.sampled_from(["request", "request", "message", "stream", "terminate"]),
)
@example(200, "application/json", "one event", b"[]", LEGACY, True, "request")
@example(404, "", "half an event", b'{"id":7,"error":{}}', LEGACY, True, "request")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_answer_ends_the_call_at_once_and_the_next_one_is_served(
    status: int, content_type: str, frame: str, content: bytes, revision: str, has_session: bool, kind: str
) -> None:
    odd: list[_Script] = []

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await (odd[0] if odd else reply(OK))(seen, writer)

    async def body() -> None:
        async with serving(script) as (_, wire):
            odd.append(_framed(status, content_type, frame, content))
            about: dict[str, Any] = {"session_id": "s"} if has_session and not is_modern(revision) else {}
            if kind != "request":
                about |= {"kind": kind, "message": None}
            started_s = time.monotonic()
            ended, _ = await ask(wire, call(revision=revision, timeout_s=_DEADLINE_S, **about))
            assert time.monotonic() - started_s < _AT_ONCE_S
            if isinstance(ended, UpstreamError):
                assert ended.failure.reason in REFUSALS
                assert ended.failure.text.isprintable()
                assert ended.failure.error == b"" or json.loads(ended.failure.error)
            elif kind == "request":
                assert ended.response is not None
                assert ended.response.id == b"7"
                assert bool(ended.response.result) != bool(ended.response.error)
            odd.clear()
            served, _ = await ask(wire)
            assert isinstance(served, UpstreamAnswer), served.failure.text

    on_loop(body)
