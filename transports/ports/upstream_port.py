"""The strategy that every transport implements, towards clients (downstream) and towards servers (upstream)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Response
from mcp_gateway.transports.protocol.sealed.session import SessionState

EventHandler = Callable[[Message | None, str | None], Awaitable[None]]
"""Takes a message before the answer and its event id; awaits until there is credit to read on."""


async def ignore_events(message: Message | None, event_id: str | None) -> None:
    """For exchanges of which the answer alone counts."""


@attrs.frozen(kw_only=True)
class UpstreamRequest:
    """What one exchange with a server needs.

    kind:          "request" waits for a response; "message" is acknowledged; "stream" stays open; "terminate" ends the session.
    message:       None for a session's own stream and for its end.
    revision:      what this exchange speaks.
    session_id:    the server's own, where it has assigned one.
    headers:       lower-case, to be sent along as they are.
    has_headers:   its client came over HTTP with the headers that a modern request has; on a socket there are none.
    timeout_s:     for the whole exchange, answer body included; None for streams.
    session:       the client's, where it has one: its own `initialize`, the revision it speaks, what it has asked for since.
    hash_keys:     who the client is, by source ("user", "session", "ip").
    on_open:       called once a stream is open, before its first event.
    is_relayed:    another cell asks for one of its clients, and hears what its own sessions at the server are told itself.
    """

    kind: str
    message: Message | None = attrs.field(default=None, repr=False)
    revision: str
    session_id: str | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    has_headers: bool = False
    timeout_s: float | None = None
    last_event_id: str | None = None
    session: SessionState | None = attrs.field(default=None, repr=False)
    hash_keys: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    on_open: Callable[[], None] | None = attrs.field(default=None, repr=False)
    is_relayed: bool = False


@attrs.frozen
class UpstreamAnswer:
    """What ended an exchange.

    status:   HTTP status, 200 where there is none.
    response: None for an accepted message, or a stream that has ended.
    revision: what the server speaks, where an answer to `initialize` tells the client another one.
    """

    status: int
    response: Response | None
    session_id: str | None = None
    revision: str | None = None


Elsewhere = Callable[[str, str, str, UpstreamRequest, EventHandler], Awaitable[UpstreamAnswer]]
"""(cell name, backend, replica id, request, on_event): let the named cell of this node speak to its replica.

Raises: UpstreamError, also where the cell does not run.
"""


class UpstreamError(Exception):
    """An exchange that has no answer.

    reason:          "upstream_failed", "upstream_timeout", "unknown_method", "too_large" (keys of `refusals.REFUSALS`).
    was_sent:        whether the server may have seen the message.
    is_fault:        whether it counts against the server, as a broken or overloaded one.
    is_session_lost: the server does not know the session.
    is_cut:          the connection has ended before the answer: nobody knows whether the request ran.
    is_unsupported:  the server does not speak the revision of this exchange.
    is_ours:         the client or the gateway has ended it, whatever the server would have said.
    error:           the JSON-RPC error it gave, as JSON.
    """

    def __init__(
        self,
        reason: str,
        text: str,
        *,
        was_sent: bool = True,
        is_fault: bool = True,
        is_session_lost: bool = False,
        is_cut: bool = False,
        is_unsupported: bool = False,
        is_ours: bool = False,
        error: bytes = b"",
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.was_sent = was_sent
        self.is_fault = is_fault
        self.is_session_lost = is_session_lost
        self.is_cut = is_cut
        self.is_unsupported = is_unsupported
        self.is_ours = is_ours
        self.error = error

    @property
    def is_refusal(self) -> bool:
        """Whether the server was there and has answered, with something that is no answer."""
        return self.reason == "upstream_failed" and self.was_sent and not self.is_cut

    @property
    def is_verdict(self) -> bool:
        """Whether it shows how the server is: by its fault, or because the server was there to refuse."""
        return self.is_fault or (self.was_sent and not self.is_cut and not self.is_ours)

    def facts(self) -> dict[str, Any]:
        """The arguments that make an equal error, by name: an exception itself does not travel between processes."""
        names = ("reason", "text", "was_sent", "is_fault", "is_session_lost", "is_cut", "is_unsupported", "is_ours", "error")
        return {name: getattr(self, name) for name in names}


def only_legacy() -> UpstreamError:
    """A modern request has met a server of the other era."""
    text = "the server only speaks revisions with the initialize handshake"
    return UpstreamError("unsupported_version", text, is_fault=False, is_unsupported=True)


class UpstreamConversation(Protocol):
    """One replica's wire: any number of exchanges at once, on the event loop that made it."""

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        """Speak to the server once. Cancelling the task cancels the exchange as the transport does it.

        Raises: UpstreamError.
        """

    async def probe(self, timeout_s: float) -> None:
        """Ask whether the server is well.

        Raises: UpstreamError.
        """

    async def close(self) -> None:
        """Let go of every connection."""
