"""Whatever a server says between its answers: no call is lost by it, and nobody hears what is not for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.http.dropped_messages import DroppedMessages
from mcp_gateway.transports.upstream.pipes.message_pipe import TooLarge
from mcp_gateway.transports.upstream.pipes.open_pipe import OpenPipe
from tests.doubles.scripted_pipe import ScriptedPipe

_OWNERS = ("ada", "bob", "eve")
# Not 1 to 3, which are the calls': a server may answer those as it likes, also with nonsense.
_ids = st.sampled_from([0, 4, -1, 10**30, 1.5, "4", "x", "", None, [1], {"id": 1}, True]) | st.text(max_size=3).filter(
    lambda text: text not in ("1", "2", "3")
)
_tokens = st.sampled_from([1, 2, "1", "2", "ada", "eve", 0, None, 1.0, [1], "mcp"])
_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_params = st.fixed_dictionaries(
    {},
    optional={
        "progressToken": _tokens,
        "requestId": _tokens,
        "progress": st.integers(0, 9),
        "level": st.text(max_size=5),
        "_meta": _any,
    },
)
_methods = st.sampled_from(
    ["notifications/progress", "notifications/cancelled", "notifications/message", "notifications/tools/list_changed", "ping",
     "roots/list", "sampling/createMessage", "notifications/resources/updated"]
) | st.text(max_size=6)  # fmt: skip
_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", None, 2]),
        "id": _ids,
        "method": _methods,
        "params": _params | _any,
        "result": _any,
        "error": _any,
    },
)
_sound = st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "method": _methods, "params": _params}, optional={"id": _ids}) | (
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": _ids, "result": st.just({"forged": True})})
)


def _names_no_call(value: Any) -> bool:
    ids = [each.get("id") for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
    return not any(str(each) in ("1", "2", "3", "1.0", "2.0", "3.0") for each in ids)


_lines = (
    (_sound | _messages | st.lists(_messages, max_size=3) | _any)
    .filter(_names_no_call)
    .map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=30)
    | _messages.map(lambda value: json.dumps(value).encode()[:-1])
    | st.builds(lambda head: TooLarge(head, b"..."), st.binary(max_size=20))
)


class _Caller:
    """One call of one client on a pipe that both share. heard: what came before its answer."""

    def __init__(self, pipe: OpenPipe, owner: str) -> None:
        self.owner = owner
        self.heard: list[Message] = []
        params = json.dumps({"name": "x", "_meta": {"progressToken": owner}}).encode()
        self.call = asyncio.ensure_future(pipe.request(owner, Request(b'"mine"', "tools/call", params), self.hear, 10.0))

    async def hear(self, message: Message | None, _: str | None) -> None:
        assert message is not None
        self.heard.append(message)


@settings(max_examples=200, deadline=None)
@given(st.lists(_lines, max_size=12), st.lists(_lines, max_size=6))
def test_any_lines_lose_no_call_and_reach_nobody_else(before: list[bytes | TooLarge], between: list[bytes | TooLarge]) -> None:
    async def body() -> None:
        server = ScriptedPipe({})
        await server.open()
        pipe = OpenPipe(
            server, name="any", is_private=False, is_modern=False, on_end=lambda _: None, dropped=DroppedMessages("any", "any")
        )
        callers = [_Caller(pipe, owner) for owner in _OWNERS]
        async with asyncio.timeout(10):
            while len(server.sent) < len(_OWNERS):
                await asyncio.sleep(0)
        for lines, request_id in ((before, b"1"), (between, b"2")):
            for line in lines:
                server.say(line)
            server.say(Response(request_id, b'{"is":%b}' % request_id, b""))
        server.say(Response(b"3", b'{"is":3}', b""))  # two are open until then: what names no call is nobody's
        for number, caller in enumerate(callers, start=1):
            answer = await asyncio.wait_for(caller.call, 10)
            assert answer == Response(b'"mine"', b'{"is":%d}' % number, b"")
            for message in caller.heard:
                assert isinstance(message, Notification)
                assert message.method == "notifications/progress"
                assert json.loads(message.params)["progressToken"] == caller.owner
        assert pipe.is_open
        await pipe.close()

    asyncio.run(body())
