"""`requestState`: what a modern client brings back when it has answered a legacy server's question, sealed. Pure.

Source: MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements", 5: principal, expiry and the originating request are inside
the protected payload and verified on receipt. That it also names the owner of the parkable call is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

from .sealing import Seal, SealBroken

_KIND: Final = "request-state"


class CallState(msgspec.Struct, frozen=True, array_like=True):
    """What one round of one call needs to go on.

    cell:        whose bridge holds the parked call.
    incarnation: of that bridge; one that was started again does not have the call any more.
    call:        names the parked call, or is "" where the server has refused the request until a question is answered: it did not
                 run, so the retry sends it again.
    number:      of the round, from 1; each is used once.
    expires_s:   seconds since the epoch.
    digest:      of the request, see `request_digest`.
    """

    cell: str
    incarnation: str
    backend: str
    replica: str
    principal: str
    call: str
    number: int
    expires_s: float
    digest: bytes


_decode = msgspec.msgpack.Decoder(CallState).decode


def sealed_state(seal: Seal, state: CallState) -> str:
    return seal.seal(_KIND, msgspec.msgpack.encode(state))


def read_state(seal: Seal, request_state: str) -> CallState | None:
    """What a client has brought back, or None where this gateway never sealed it, or it was altered."""
    try:
        return _decode(seal.open(_KIND, request_state))
    except (SealBroken, msgspec.DecodeError):
        return None


def resumed_replica(seal: Seal, params: bytes) -> str:
    """The replica whose call a request goes on with, or "" where it carries no state of ours."""
    try:
        shown = members(params).get("requestState")
        state = None if shown is None else read_state(seal, msgspec.json.decode(shown, type=str))
    except (msgspec.DecodeError, RecursionError):
        return ""
    return "" if state is None else state.replica


def request_digest(method: str, params: Mapping[str, Raw]) -> bytes:
    """What makes two requests the same one. params: without `_meta` and what belongs to round trips; in any order."""
    values = {name: msgspec.json.decode(value) for name, value in params.items()}
    canonical = msgspec.json.encode([method, values], order="deterministic")
    return hashlib.blake2b(canonical, digest_size=16).digest()


def state_problem(
    state: CallState, *, backend: str, replica: str, principal: str, digest: bytes, now_s: float
) -> tuple[str, str] | None:
    """(reason, text) why this retry is refused, or None where the state belongs to it. now_s: seconds since the epoch."""
    if state.principal != principal:
        return "forbidden", "requestState was given to somebody else"
    if (state.backend, state.replica) != (backend, replica):
        return "invalid_params", "requestState belongs to another server"
    if state.digest != digest:
        return "invalid_params", "requestState belongs to another request"
    if now_s > state.expires_s:
        return "invalid_params", "requestState has expired; its call was ended and is not run again"
    return None
