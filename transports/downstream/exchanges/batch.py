"""JSON-RPC batches, which only revision 2025-03-26 has: each message is served on its own, the answers are sent as one array.

Source: MCP 2025-03-26, basic/index, "Batching"; basic/transports, "Sending Messages to the Server".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.mcp.refusals import Refused

BATCH_REVISION: Final = "2025-03-26"
MAX_MESSAGES: Final = 100


class _Answer(msgspec.Struct):
    """What is read of an answer that is not sent."""

    id: msgspec.Raw


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_batch(body: bytes) -> bool:
    return body[:1] == b"[" or body.lstrip()[:1] == b"["


def batch_messages(body: bytes) -> list[bytes]:
    """The messages of a batch.

    Raises: Refused with parse_error, or with invalid_request for an empty or too long one.
    """
    try:
        messages = [bytes(each) for each in _decode_array(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("parse_error", f"Parse error: {error}") from None
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise Refused("invalid_request", f"a batch has 1 to {MAX_MESSAGES} messages, not {len(messages)}")
    return messages


class Batch:
    """Collects the answers of a batch; `parts` stand in for the HTTP requests that the messages did not come in.

    most_bytes: of all answers together, which are one message to the client; one that has no room any more is refused.
    """

    def __init__(self, incoming: Incoming, count: int, most_bytes: int) -> None:
        self._incoming = incoming
        self._most_bytes = most_bytes
        self._room_bytes = most_bytes
        self._answers: list[bytes] = []
        self._open = count
        self._sent: list[Callable[[], None]] = []  # to be called when the array has left
        self.parts = [BatchPart(self, incoming) for _ in range(count)]
        incoming.on_client_gone(self._client_gone)

    def take(self, body: bytes) -> None:
        """One message is served; an empty body is the acknowledgement of one that has no answer."""
        if len(body) > self._room_bytes:
            text = f"the answers of the batch are larger than {self._most_bytes} bytes together"
            body = Refused("too_large", text, request_id=bytes(_decode_answer(body).id)).body()
        if body:
            self._room_bytes -= len(body)
            self._answers.append(body)
        self._open -= 1
        if not self._open:
            if self._answers:
                self._incoming.respond(200, b"[" + b",".join(self._answers) + b"]", {})
            else:
                self._incoming.respond(202, b"", {})
            self._answers.clear()

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call back once the client's socket has taken the whole array, or the client has gone."""
        self._sent.append(callback)
        if not self._open:
            self._incoming.when_sent(self._tell_sent)

    def _tell_sent(self) -> None:
        sent, self._sent = self._sent, []
        for callback in sent:
            callback()

    def _client_gone(self) -> None:
        for part in self.parts:
            part.client_gone()
        self._tell_sent()


class BatchPart:
    """What an endpoint sees of an HTTP request, for one message of a batch. Its answers are plain JSON, never a stream."""

    def __init__(self, batch: Batch, incoming: Incoming) -> None:
        self._batch = batch
        self._gone: Callable[[], None] | None = None
        self._has_answered = False
        self.headers = {**incoming.headers, "Accept": "application/json"}
        self.query = incoming.query
        self.remote_ip = incoming.remote_ip
        self.principal = incoming.principal
        self.holder = incoming.holder

    def respond(self, status: int, body: Pieces, headers: Mapping[str, str]) -> None:
        if not self._has_answered:
            self._has_answered = True
            self._batch.take(joined(body))

    def refuse(self, refused: Refused) -> None:
        self.respond(refused.status, refused.body(), {})

    def when_sent(self, callback: Callable[[], None]) -> None:
        self._batch.when_sent(callback)

    def on_client_gone(self, callback: Callable[[], None] | None) -> None:
        self._gone = callback

    def client_gone(self) -> None:
        if self._gone is not None and not self._has_answered:
            self._gone()

    def begin(self, headers: Mapping[str, str]) -> None:
        raise AssertionError("a message of a batch is answered by JSON: its exchange takes no events")

    def write(self, data: bytes) -> asyncio.Future[None]:
        raise AssertionError("a message of a batch is answered by JSON: its exchange takes no events")

    def end(self) -> None:
        raise AssertionError("a message of a batch is answered by JSON: its exchange takes no events")
