"""A client of the stateless revision over plain HTTP, as small as one command needs it.

Source: MCP 2026-07-28, basic/transports/streamable-http, "Sending Messages"; basic/patterns/mrtr for questions.
"""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, EventTooLarge
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST

from .gateway_address import GatewayAddress, refusal

_LARGEST_ANSWER_BYTES: Final = 1 << 28
_MOST_PAGES: Final = 10_000
_MOST_ROUNDS: Final = 100
_ITEM: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

Notified = Callable[[str, Mapping[str, Any]], None]
"""Takes the method and the params of what comes before the answer."""
Asked = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Takes the method and the params of a question; the answer, as `inputResponses` has it."""


class CallFailed(Exception):
    """There is no result; the text is one clear line for people. reason: that of the gateway's refusal, or ""."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class StatelessClient:
    """Speaks to one endpoint, each request on a connection of its own.

    path:       of the endpoint, such as /mcp/servers/files.
    answers:    called for each question of a server; None cannot be asked.
    """

    def __init__(self, gateway: GatewayAddress, path: str, *, answers: Asked | None = None) -> None:
        self._gateway = gateway
        self._path = path
        self._answers = answers
        self._ids = itertools.count(1)
        self.missing: dict[str, object] = {}  # {backend: why}

    def items(self, method: str, member: str) -> Iterator[dict[str, Any]]:
        """Everything that a list has, whatever its pages; `missing` has the backends then that gave no part of it.

        Raises: CallFailed
        """
        cursor = None
        for _ in range(_MOST_PAGES):
            result = self.request(method, {} if cursor is None else {"cursor": cursor})
            self._note_missing(result)
            yield from result.get(member, ())
            cursor = result.get("nextCursor")
            if cursor is None:
                return
        raise CallFailed(f"{method} has more than {_MOST_PAGES} pages")

    def _note_missing(self, result: Mapping[str, Any]) -> None:
        from mcp_gateway.transports.protocol.merging.merged_server import MISSING_BACKENDS

        meta = result.get("_meta")
        reasons = meta.get(MISSING_BACKENDS) if isinstance(meta, dict) else None
        self.missing |= reasons if isinstance(reasons, dict) else {}

    def request(self, method: str, params: Mapping[str, Any], on_notification: Notified | None = None) -> dict[str, Any]:
        """The result. Questions in between are answered, each round with the answers to the one before.

        Raises: CallFailed
        """
        more: dict[str, Any] = {}
        for _ in range(_MOST_ROUNDS):
            result = self._exchange(method, {**params, **more}, on_notification)
            if result.get("resultType") != "input_required":
                return result
            if self._answers is None:
                raise CallFailed("the server asks something, and nobody can be asked here")
            asked = result.get("inputRequests") or {}
            answers = {key: self._answers(entry["method"], entry.get("params", {})) for key, entry in asked.items()}
            more = {"inputResponses": answers} if answers else {}
            if "requestState" in result:
                more["requestState"] = result["requestState"]
        raise CallFailed(f"the server has asked {_MOST_ROUNDS} times in a row")

    def _exchange(self, method: str, params: dict[str, Any], on_notification: Notified | None) -> dict[str, Any]:
        request_id = next(self._ids)
        meta: dict[str, Any] = {
            "io.modelcontextprotocol/protocolVersion": NEWEST,
            "io.modelcontextprotocol/clientInfo": {"name": "mcp-gateway-cli", "version": VERSION},
            "io.modelcontextprotocol/clientCapabilities": {}
            if self._answers is None
            else {"elicitation": {"form": {}, "url": {}}},
        }
        if on_notification is not None:
            meta["progressToken"] = request_id
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {**params, "_meta": meta}}
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": NEWEST,
            "Mcp-Method": method,
            **self._gateway.headers(),
        }
        if method in _ITEM:
            headers["Mcp-Name"] = str(params[_ITEM[method]])
        for message in self._messages(json.dumps(body).encode(), headers):
            if "method" in message:
                if on_notification is not None:
                    on_notification(message["method"], message.get("params") or {})
            elif "error" in message:
                raise self._failed(message["error"])
            elif isinstance(result := message.get("result"), dict):
                return result
        raise CallFailed("the gateway has ended the answer before it was whole")

    def _messages(self, body: bytes, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        try:
            connection = self._gateway.connection()
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            connection.connect()
            connection.sock.settimeout(None)  # a call may take as long as the gateway lets it
            connection.request("POST", self._path, body, {name: value.encode() for name, value in headers.items()})
            answer = connection.getresponse()
            yield from _read(answer)
        except (OSError, http.client.HTTPException, EventTooLarge) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _unreachable(self, error: Exception) -> CallFailed:
        return CallFailed(f"the gateway at {self._gateway.url}{self._path} cannot be reached: {error or type(error).__name__}")

    def _failed(self, error: Any) -> CallFailed:
        """A server may put anything where an error belongs."""
        fields = error if isinstance(error, dict) else {}
        data = fields.get("data")
        data = data if isinstance(data, dict) else {}
        reason = data.get("reason")
        reason = reason if isinstance(reason, str) else ""
        text = str(fields.get("message") or "the server has failed without a word")
        if reason == "consent_required" and isinstance(url := data.get("url"), str):
            text = f"{text}: open {url}, and call again"
        elif isinstance(request_id := data.get("request_id"), str):
            text = f"{text} (request {request_id})"
        return CallFailed(refusal(text, reason, self._gateway), reason)


def _read(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    if (answer.getheader("Content-Type") or "").startswith("text/event-stream"):
        parser = EventStreamParser(_LARGEST_ANSWER_BYTES)
        while chunk := answer.read1(65_536):
            for event in parser.feed(chunk):
                if event.data:
                    yield _message(event.data, answer.status)
    else:
        yield _message(answer.read(_LARGEST_ANSWER_BYTES), answer.status)


def _message(data: bytes, status: int) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise CallFailed(f"what answers there is no gateway (HTTP status {status})")
    return message
