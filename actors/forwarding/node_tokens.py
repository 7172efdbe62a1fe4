"""What a process gives its clients to come back with, sealed with its node: they may come back at any other. Pure.

A client of 2026-07-28 has no session that would name a node. What binds it to one process are the `requestState` of a call that
asks, and the ids of tasks. Source: MCP 2026-07-28, basic/patterns/mrtr; SEP-2663. That they name a node is ours.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.eras.questions import MAY_NEED_INPUT
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response, members
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.task_names import (
    Rename,
    inner_task_message,
    outer_task_message,
    outer_task_result,
)
from mcp_gateway.transports.protocol.sealed.call_state import read_state
from mcp_gateway.transports.protocol.sealed.sealing import Seal, SealBroken
from mcp_gateway.transports.protocol.sealed.task_ids import read_task_id

MOST_SEALED_BYTES: Final = 32_768
"""Longer ones go as they are: what a token takes to open has an end."""
_KIND: Final = "given-by-node"
_STATE: Final = "requestState"


class _Given(msgspec.Struct, frozen=True, array_like=True):
    """text: the server's own."""

    node: str
    text: str


_decode = msgspec.msgpack.Decoder(_Given).decode


class NodeTokens:
    """Of one server. What the gateway itself has sealed names its place already, and stays as it is."""

    def __init__(self, seal: Seal, backend: str) -> None:
        self._seal = seal
        self._naming = Naming(backend, "")

    def read(self, request: Request) -> tuple[str, Request]:
        """(node that what the client brings back is from, or "" where it brings nothing; the request as the process reads it)"""
        nodes: list[str] = []

        def inner(shown: str) -> str:
            try:
                given = _decode(self._seal.open(_KIND, shown))
            except (SealBroken, msgspec.DecodeError):
                return shown
            nodes.append(given.node)
            return given.text

        found = inner_task_message(request, inner)
        assert isinstance(found, Request)
        if found.method in MAY_NEED_INPUT:
            params = _with_state(found.params, inner)
            found = found if params is found.params else Request(found.id, found.method, params)
        return (nodes[0] if nodes else ""), found

    def given(self, node: str, request: Request, response: Response) -> Response:
        """The answer of the process on this node."""
        if not response.result:
            return response
        result = outer_task_result(request.method, response.result, self._naming, lambda task: self._outer_task(node, task))
        if request.method in MAY_NEED_INPUT:
            result = _with_state(result, lambda state: self._outer_state(node, state))
        return response if result is response.result else Response(response.id, result, b"")

    def told(self, node: str, event: Message) -> Message:
        """What it says before its answer, or on a stream."""
        if not isinstance(event, Notification):
            return event
        return outer_task_message(event, self._naming, lambda task: self._outer_task(node, task))

    def _outer_task(self, node: str, task: str) -> str:
        return task if read_task_id(self._seal, task) is not None else self._sealed(node, task)

    def _outer_state(self, node: str, state: str) -> str:
        return state if read_state(self._seal, state) is not None else self._sealed(node, state)

    def _sealed(self, node: str, text: str) -> str:
        """The same for the same text: clients compare ids."""
        if len(text.encode()) > MOST_SEALED_BYTES:
            return text
        return self._seal.seal_alike(_KIND, msgspec.msgpack.encode(_Given(node, text)))


def _with_state(json_object: bytes, rename: Rename) -> bytes:
    """The very same where there is none, or nothing to change."""
    if _STATE.encode() not in json_object:
        return json_object
    try:
        values = members(json_object)
        shown = msgspec.json.decode(values[_STATE], type=str)
    except (KeyError, msgspec.DecodeError, RecursionError):
        return json_object
    if (renamed := rename(shown)) == shown:
        return json_object
    values[_STATE] = Raw(msgspec.json.encode(renamed))
    return msgspec.json.encode(values)
