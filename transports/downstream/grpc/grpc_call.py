"""One gRPC call of a client as a request of MCP 2026-07-28, and the answer on its way back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote

import attrs
import msgspec

from mcp_gateway.transports.downstream.server.client_connection import AnswerWriter, Peer
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.grpc.methods import GrpcMethod
from mcp_gateway.transports.protocol.grpc.statuses import ERROR_CODE, ERROR_DATA, status_of
from mcp_gateway.transports.protocol.grpc.values import CannotCross
from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR
from mcp_gateway.transports.protocol.mcp.modern_rules import encoded_header
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, META_VERSION, NEWEST

SERVER: Final = "mcp-server"
"""Metadata that names a backend or a virtual server, as the paths of `/mcp/servers/` do. Ours."""

_NAMED_IN: Final = ("mcp_tool", "mcp_resource", "mcp_prompt")
"""Metadata that says what is asked for. Source: mcp.proto."""

_OWN: Final = frozenset(
    {
        *("accept", "connection", "content-encoding", "content-length", "content-type", "cookie", "expect", "host"),
        *("last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "te", "transfer-encoding"),
        SERVER,
    }
)
"""Headers that the request gets from the call itself, or that say nothing of it."""

_SENT_AS_THEY_ARE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_PROGRESS: Final = "progressToken"
_LARGEST_DATA_BYTES: Final = 3_000
_LONGEST_TEXT: Final = 2_000
_LARGEST_TEXT_BYTES: Final = 3_000
"""Of an error: clients take 8 kB as the end of a call. Each byte of a text that is not ASCII is sent as three."""


@attrs.frozen
class Outcome:
    """How a call ends that gives no message. status: by its name. trailers: metadata after it."""

    status: str
    details: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()


def params_of(method: GrpcMethod, data: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the client asks for, with the `_meta` that the revision needs.

    Raises: Refused
    """
    try:
        params = method.decode_request(data)
    except CannotCross as error:
        raise Refused("invalid_params", f"Invalid params: {error}") from None
    item = params.get(method.item)
    for name in _NAMED_IN:
        if item is not None and name in metadata and metadata[name] != item:
            raise Refused("header_mismatch", f"Header mismatch: {name} is not what the message asks for")
    meta = {name: value for name, value in (params.get("_meta") or {}).items() if name != _PROGRESS}
    params["_meta"] = {META_VERSION: NEWEST, META_CLIENT_CAPABILITIES: {}, **meta}
    return params


def body_of(method: GrpcMethod, params: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method.name, "params": params})


def headers_of(method: GrpcMethod, params: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, str]:
    """As a client of Streamable HTTP sends them. metadata: {name in lower case: value}."""
    headers = {header_name(name): value for name, value in metadata.items() if name not in _OWN and not name.endswith("-bin")}
    headers |= {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Mcp-Protocol-Version": str(params["_meta"][META_VERSION]),
        "Mcp-Method": method.name,
    }
    if isinstance(item := params.get(method.item), str):
        headers["Mcp-Name"] = encoded_header(item)
    return headers


def path_of(metadata: Mapping[str, str]) -> str:
    """Where the request goes: to all backends as one, or to the one that is named."""
    name = metadata.get(SERVER, "")
    return f"/mcp/servers/{quote(name, safe='')}" if name else "/mcp"


def header_name(name: str) -> str:
    """Of a header, in place of that of metadata."""
    return "-".join(part.capitalize() for part in name.split("-"))


def answer_of(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | Outcome:
    """The result, or how the call ends. status: of HTTP."""
    try:
        answer = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return Outcome("INTERNAL", "internal error")
    if "error" not in answer:
        return cast("dict[str, Any]", answer.get("result", {}))
    error = answer["error"]
    return error_of(status, headers, error.get("code", INTERNAL_ERROR), str(error.get("message", "")), error.get("data"))


def refusal(refused: Refused) -> Outcome:
    data = {"reason": refused.reason, **refused.data}
    return error_of(refused.status, {}, refused.code, refused.text, data)


def error_of(status: int, headers: Mapping[str, str], code: int, text: str, data: Any) -> Outcome:
    trailers: list[tuple[str, str | bytes]] = [(ERROR_CODE, str(code))]
    if data is not None and len(encoded := msgspec.json.encode(data)) <= _LARGEST_DATA_BYTES:
        trailers.append((ERROR_DATA, encoded))
    if (challenge := headers.get("WWW-Authenticate")) is not None:
        trailers.append(("www-authenticate", challenge))
    return Outcome(status_of(status, code), _shortened(text[:_LONGEST_TEXT].encode(errors="replace").decode()), tuple(trailers))


def _shortened(text: str) -> str:
    """Source: gRPC, "PROTOCOL-HTTP2", Percent-Encoded."""
    while len(quote(text, safe=_SENT_AS_THEY_ARE)) > _LARGEST_TEXT_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


class CallWriter(AnswerWriter):
    """Takes the whole answer of a request. answered: (status, headers, body), once that is there."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.answered: asyncio.Future[tuple[int, Mapping[str, str], bytes]] = asyncio.get_running_loop().create_future()

    @property
    def stream(self) -> Any:
        return _NOTHING_WAITS

    @property
    def peer(self) -> Peer:
        return self._peer

    def answer(self, status: int, headers: Mapping[str, str], body: Pieces) -> None:
        if not self.answered.done():
            self.answered.set_result((status, headers, joined(body)))

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """No method of the proto has an answer that is a stream."""
        self.answer(500, headers, b"")

    def write(self, data: bytes) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def end(self) -> None:
        """See `begin`."""

    def detach(self) -> Any:
        raise ValueError("a call is no connection")


class _NothingWaits:
    """In place of a stream, for who counts what it holds: gRPC holds what is sent, and the call waits for that."""

    def writing(self) -> bool:
        return False

    def closed(self) -> bool:
        return False


_NOTHING_WAITS: Final = _NothingWaits()
