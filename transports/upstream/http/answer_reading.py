"""Which of the messages in a body answers the one request that was posted, in whatever form a server writes it. Pure.

Source: JSON-RPC 2.0, section 5: a response is known by its id, which is null where the server could not read the request's;
MCP 2025-03-26, basic/transports, "Sending Messages to the Server": responses may come in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, EventTooLarge
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.result_form import bytes_before_result, bytes_behind_result

from .counted_body import Frame

EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"


class Said(msgspec.Struct, frozen=True, gc=False):
    """What a server said to one request. There is one for every event: a Struct takes a sixth of the time of an attrs class.

    answer:  the response, with the request's own id.
    beside:  what else the server told or asked, in order.
    foreign: a response that does not answer this request; foreign_count: how many there are.
    problem: why there is no answer; "" where there is one.
    """

    answer: Response | None
    beside: tuple[Request | Notification, ...] = ()
    foreign: Response | None = None
    problem: str = ""
    foreign_count: int = 0

    @property
    def error(self) -> bytes:
        """The JSON-RPC error, whoever it is for; b"" for none."""
        response = self.answer or self.foreign
        return response.error if response is not None else b""


RESULT_FRAME: Final = Frame(before=bytes_before_result, behind=bytes_behind_result)
"""So that the result of a response stands by itself as it comes."""


def read_said(body: Pieces, request_id: bytes) -> Said:
    """What a message, or a batch of them, says to the request with this id. body: whole, or as its frame has parted it."""
    if not isinstance(body, bytes):
        large = jsonrpc.large_response(body)
        if large is not None and large.id == request_id:
            return Said(large)
        body = joined(body)
    if body.startswith(b"{"):  # as nearly always: the answer, or an event before it
        try:
            only = jsonrpc.decode_from_server(body)
        except Refused as refused:
            return Said(None, problem=f"malformed: {refused.text}")
        if not isinstance(only, Response):
            return Said(None, (only,), problem="no response")
        if only.id == request_id != jsonrpc.NULL:
            return Said(only)
        return _among([only], request_id, "")
    messages: list[Message] = []
    malformed = ""
    for part in jsonrpc.parts_of(body):
        try:
            messages.append(jsonrpc.decode_from_server(part))
        except Refused as refused:
            malformed = malformed or refused.text
    return _among(messages, request_id, malformed)


def _among(messages: Sequence[Message], request_id: bytes, malformed: str) -> Said:
    """malformed: what is wrong with others; "" where nothing is."""
    responses = [message for message in messages if isinstance(message, Response)]
    beside = tuple(message for message in messages if not isinstance(message, Response))
    answer = _answer_among(responses, request_id)
    foreign_count = len(responses) - (answer is not None and request_id != jsonrpc.NULL)
    if answer is not None:
        return Said(answer.to(request_id), beside, foreign_count=foreign_count)
    foreign = responses[0] if responses else None
    problem = "for another request than ours" if responses else "no response"
    if malformed:
        problem = f"malformed: {malformed}"
    return Said(None, beside, foreign, problem, foreign_count)


def media_type(headers: Mapping[str, str]) -> str:
    """As the head of an answer names it, "" where it does not. headers: lower-case names."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def read_usual(content_type: str, body: bytes, request_id: bytes, max_event_bytes: int) -> Response | None:
    """The answer in a body as nearly all are: a response as JSON, or as the first event of a stream, and nothing else.

    None where a closer look is needed, or more of the stream.
    """
    if content_type == EVENT_STREAM:
        try:
            events = EventStreamParser(max_event_bytes).feed(body)
        except EventTooLarge:
            return None
        if len(events) != 1 or events[0].event != "message":
            return None
        body = events[0].data
    elif content_type != _JSON:
        return None
    said = read_said(body, request_id)
    return None if said.beside or said.foreign_count else said.answer


def read_refusal(body: bytes, request_id: bytes, *, is_event_stream: bool) -> Said:
    """The same where the status is an error's: any response in it is taken, and an event stream is read as a whole."""
    if not is_event_stream:
        return read_said(body, request_id)
    beside: tuple[Request | Notification, ...] = ()
    try:
        events = EventStreamParser(max(1, len(body))).feed(body + b"\n\n")
        for event in events:
            said = read_said(event.data, request_id)
            beside += said.beside
            if said.answer is not None or said.foreign is not None:
                return msgspec.structs.replace(said, beside=beside)
    except EventTooLarge:
        pass
    return Said(None, beside, problem="no response")


def _answer_among(responses: Sequence[Response], request_id: bytes) -> Response | None:
    for response in responses:
        if jsonrpc.is_same_id(response.id, request_id):
            return response
    if len(responses) == 1 and responses[0].id == jsonrpc.NULL:
        return responses[0]
    return None
