"""JSON-RPC 2.0 messages of MCP: only the envelope is decoded, parameters and results stay bytes.

Source: MCP 2026-07-28, basic/index, "Messages"; the same rules hold in every earlier revision.
"""

from __future__ import annotations

import codecs
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.framing.surrogates import without_halves

from .duplicate_names import has_duplicate_names
from .refusals import Refused
from .result_form import in_pieces, read_response

NULL: Final = b"null"


class Request(msgspec.Struct, frozen=True, gc=False):
    """A message that expects an answer. id: the JSON of a string or integer; params: the JSON of an object, or empty."""

    id: bytes
    method: str
    params: bytes


class Notification(msgspec.Struct, frozen=True, gc=False):
    """A message that expects none. params: the JSON of an object, or empty."""

    method: str
    params: bytes


class Response(msgspec.Struct, frozen=True, gc=False):
    """An answer: exactly one of result and error is JSON, the other one empty. id may be `null` in an error.

    is_plain: the result is known to be as `result_form.is_plain` says; of small ones nobody has looked.
    """

    id: bytes
    result: bytes
    error: bytes
    is_plain: bool = False

    def to(self, request_id: bytes) -> Response:
        """The same answer to another id."""
        return Response(request_id, self.result, self.error, self.is_plain)


Message = Request | Notification | Response


class _Envelope(msgspec.Struct):
    jsonrpc: str
    id: Raw | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_LARGE_BYTES: Final = 65_536
_TEXT_AT_ONCE_BYTES: Final = 65_536
_utf8_decoder = codecs.getincrementaldecoder("utf-8")
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_parts = msgspec.json.Decoder(list[Raw]).decode
_decode_id = msgspec.json.Decoder(str | int).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


def decode(body: bytes) -> Message:
    """Read one message.

    Raises: Refused with parse_error (not JSON, not UTF-8, nested too deep) or invalid_request (JSON, but no message).
    """
    try:
        if not body.isascii():
            _check_text(body)
        envelope = _decode_envelope(body)
    except msgspec.ValidationError as error:
        raise _not_a_message(body, str(error)) from None
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        repaired = without_halves(body)
        if repaired != body:
            return decode(repaired)
        raise Refused("parse_error", f"Parse error: {error}") from None
    if envelope.jsonrpc != "2.0":
        raise _not_a_message(body, f'"jsonrpc" must be "2.0", not {envelope.jsonrpc[:20]!r}')
    if envelope.method is not UNSET:
        params = _object_or_empty(body, envelope.params, "params")
        if envelope.id is UNSET:
            return Notification(envelope.method, params)
        return Request(_checked_id(body, envelope.id), envelope.method, params)
    if envelope.id is UNSET:
        raise _not_a_message(body, 'neither "method" nor "id"')
    has_result, has_error = envelope.result is not UNSET, envelope.error is not UNSET
    if has_result == has_error:
        raise _not_a_message(body, 'a response has exactly one of "result" and "error"')
    if has_result:
        result = _object_or_empty(body, envelope.result, "result")
        return Response(_checked_id(body, envelope.id), result, b"")
    request_id = NULL if bytes(envelope.id) == NULL else _checked_id(body, envelope.id)
    return Response(request_id, b"", _object_or_empty(body, envelope.error, "error"))


def decode_from_client(body: bytes) -> Message:
    """Read one message of a client, whose parameters travel on as they are: everybody must read the same in them.

    What a server writes needs no such check: of its messages the envelope is written anew, and nothing is decided by the rest.

    Raises: Refused, as `decode` does; with invalid_request where an object has two members of one name.
    """
    message = decode(body)
    check_names(body, getattr(message, "id", None))
    return message


def check_names(body: bytes, request_id: bytes | None) -> None:
    """Raises: Refused with invalid_request where an object has two members of one name. body: valid JSON."""
    try:
        if not has_duplicate_names(body):
            return
    except RecursionError as error:
        raise Refused("parse_error", f"Parse error: {error}") from None
    raise Refused("invalid_request", "Invalid request: an object has two members of one name", request_id=request_id)


def parts_of(body: bytes) -> list[bytes]:
    """The messages of a batch, which servers of 2025-03-26 may send; any other data as it is.

    Source: MCP 2025-03-26, basic/index, "Batching".
    """
    if body.startswith(b"{") or not body.lstrip().startswith(b"["):
        return [body]
    try:
        return [bytes(part) for part in _decode_parts(body)]
    except (msgspec.DecodeError, RecursionError):
        return [body]


def decode_from_server(body: bytes) -> Message:
    """Read one message as its server means it: a member that is null is not there, and a response need not say which request it
    answers (its id is `null` then). Serialisers that write every member they know give such messages.

    Raises: Refused, as `decode` does.
    """
    try:
        return (large_response(in_pieces(body)) if len(body) >= _LARGE_BYTES else None) or decode(body)
    except Refused as refused:
        lenient = _response_in(body)
        if lenient is None:
            raise refused from None
        return lenient


def large_response(pieces: Pieces) -> Response | None:
    """The successful response in what stands before its result, the result itself, and what stands behind it.

    None where a closer look is needed.
    """
    if len(pieces) != 3 or isinstance(pieces, bytes):
        return None
    before, result, behind = pieces
    try:
        _check_text(before)
        _check_text(result)
        _check_text(behind)
    except UnicodeDecodeError:
        return None
    found = read_response(before, result, behind)
    return None if found is None else Response(found[0], result, b"", is_plain=found[1])


def _response_in(body: bytes) -> Message | None:
    """The message in what `decode` refuses, where there is but one way to understand it."""
    try:
        _check_text(body)
        shown = {name: value for name, value in _decode_members(without_halves(body)).items() if bytes(value) != NULL}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if "method" in shown and not shown.keys() & {"result", "error"}:
        with suppress(Refused):
            return decode(_encode(shown))
        return None
    has_version = bytes(shown.get("jsonrpc", b"")) == b'"2.0"'
    # Without either it may be any other program's JSON.
    if ("result" in shown) == ("error" in shown) or not (has_version or ("id" in shown and "jsonrpc" not in shown)):
        return None
    content = bytes(shown.get("result") or shown["error"])
    try:
        request_id = _checked_id(body, shown["id"]) if "id" in shown else NULL
    except Refused:
        return None
    if not content.startswith(b"{"):
        return None
    return Response(request_id, content, b"") if "result" in shown else Response(request_id, b"", content)


def is_same_id(one: bytes, other: bytes) -> bool:
    """Whether two ids are one value, however they are written; a number and its digits as a string are as well."""
    if one == other:
        return True
    try:
        return str(id_value(one)) == str(id_value(other))
    except (msgspec.DecodeError, ValueError):
        return False


def encode_request(request_id: bytes, method: str, params: bytes) -> bytes:
    """The bytes of a request; empty params are left out."""
    if params:
        # Joined, here and below: formatting writes what is large into a buffer that grows, for ten times as long.
        return b"".join((b'{"jsonrpc":"2.0","id":', request_id, b',"method":', _encode(method), b',"params":', params, b"}"))
    return b'{"jsonrpc":"2.0","id":%b,"method":%b}' % (request_id, _encode(method))


def encode_notification(method: str, params: bytes) -> bytes:
    if params:
        return b"".join((b'{"jsonrpc":"2.0","method":', _encode(method), b',"params":', params, b"}"))
    return b'{"jsonrpc":"2.0","method":%b}' % _encode(method)


def encode_response(response: Response) -> bytes:
    if response.error:
        return b"".join((b'{"jsonrpc":"2.0","id":', response.id, b',"error":', response.error, b"}"))
    return b"".join((b'{"jsonrpc":"2.0","id":', response.id, b',"result":', response.result, b"}"))


def encode_in_pieces(response: Response) -> Pieces:
    """The same; a large result is a piece of its own."""
    if len(response.result) < _LARGE_BYTES:
        return encode_response(response)
    return (b'{"jsonrpc":"2.0","id":%b,"result":' % response.id, response.result, b"}")


def encode(message: Message) -> bytes:
    if isinstance(message, Request):
        return encode_request(message.id, message.method, message.params)
    if isinstance(message, Notification):
        return encode_notification(message.method, message.params)
    return encode_response(message)


def size_bytes(message: Message) -> int:
    """What its parameters, or its result or error, take as JSON."""
    return len(message.result) + len(message.error) if isinstance(message, Response) else len(message.params)


def encode_result(request_id: bytes, result: Any) -> bytes:
    """The bytes of a successful response whose result is a Python value."""
    return encode_response(Response(request_id, _encode(result), b""))


def members(json_object: bytes) -> dict[str, Raw]:
    """The members of a JSON object, their values left as bytes; an empty input is an empty object.

    Raises: msgspec.ValidationError where it is JSON but no object.
    """
    return _decode_members(json_object) if json_object else {}


def id_value(request_id: bytes) -> str | int:
    """The id as a Python value.

    Raises: msgspec.ValidationError where it is neither a string nor an integer (null, as in some errors).
    """
    value: str | int = _decode_id(request_id)
    return value


def request_id_in(body: bytes) -> bytes | None:
    """The id that a broken message still shows, so that its refusal can carry it."""
    try:
        shown = _decode_members(body).get("id")
        if shown is None:
            return None
        _decode_id(shown)
        return bytes(shown)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def _check_text(body: bytes) -> None:
    """Raises: UnicodeDecodeError where it is not UTF-8, which msgspec looks at only where it reads a string.

    A large message is not kept as text as well: that would take up to four times its size.
    """
    if body.isascii():
        return
    if len(body) <= _TEXT_AT_ONCE_BYTES:
        body.decode()
        return
    decoder = _utf8_decoder()
    for start in range(0, len(body), _TEXT_AT_ONCE_BYTES):
        decoder.decode(body[start : start + _TEXT_AT_ONCE_BYTES])
    decoder.decode(b"", final=True)


def _checked_id(body: bytes, shown: Raw) -> bytes:
    try:
        _decode_id(shown)
    except (msgspec.DecodeError, ValueError):
        raise _not_a_message(body, '"id" must be a string or an integer') from None
    return bytes(shown)


def _object_or_empty(body: bytes, value: Raw | UnsetType, name: str) -> bytes:
    if value is UNSET:
        return b""
    content = bytes(value)
    if not content.startswith(b"{"):  # msgspec has checked the grammar and trimmed the value
        raise _not_a_message(body, f'"{name}" must be an object')
    return content


def _not_a_message(body: bytes, why: str) -> Refused:
    return Refused("invalid_request", f"Invalid request: {why}", request_id=request_id_in(body))
