"""The strategy that every transport implements, towards clients (downstream) and towards servers (upstream)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import ClassVar, Protocol, TypeVar

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Response
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .failure import Failure, Fate
from .lean_message import LeanMessage
from .replica_id import ReplicaId
from .request_kind import RequestKind

EventHandler = Callable[[Message | None, str | None], Awaitable[None]]
"""Takes a message before the answer and its event id; awaits until there is credit to read on."""


async def ignore_events(message: Message | None, event_id: str | None) -> None:
    """For exchanges of which the answer alone counts."""


class UpstreamRequest(LeanMessage, frozen=True, kw_only=True):
    """What one exchange with a server needs.

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
    is_curated:    tools in it are called as the server calls them, and so they shall be in the answer.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"message", "session_id", "headers", "session", "hash_keys", "on_open"})

    kind: RequestKind
    message: Message | None = None
    revision: str
    session_id: str | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    has_headers: bool = False
    timeout_s: float | None = None
    last_event_id: str | None = None
    session: SessionState | None = None
    hash_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    on_open: Callable[[], None] | None = None
    is_relayed: bool = False
    is_curated: bool = False


class UpstreamAnswer(LeanMessage, frozen=True):
    """What ended an exchange.

    status:   HTTP status, 200 where there is none.
    response: None for an accepted message, or a stream that has ended.
    revision: what the server speaks, where an answer to `initialize` tells the client another one.
    """

    status: int
    response: Response | None
    session_id: str | None = None
    revision: str | None = None


class Elsewhere(Protocol):
    """The other cells, of the node and of its cluster, which hold connections, parked calls and tasks of their own."""

    async def exchange_at(
        self, cell_name: str, *, replica: ReplicaId, request: UpstreamRequest, on_event: EventHandler
    ) -> UpstreamAnswer:
        """Let the named cell speak to the replica. Cancelling the task cancels the exchange there.

        Raises: UpstreamError, also where the cell does not run.
        """

    def is_gone(self, cell_name: str) -> bool:
        """Whether the cell's node has left the cluster: what the cell held does not come back."""


class Stray(Enum):
    """What kind of message a server said that belongs to none of its own exchanges."""

    RESPONSE = "response"
    REQUEST = "request"
    PROGRESS = "progress"
    CANCELLATION = "cancellation"
    NOTIFICATION = "notification"


class UpstreamError(Exception):
    """An exchange that has no answer; see `Failure`."""

    def __init__(
        self,
        fate: Fate,
        text: str,
        *,
        reason: str = "",
        error: bytes = b"",
        retry_after_s: float | None = None,
        is_certain: bool = False,
    ) -> None:
        """reason: "" for what is usual for the fate."""
        super().__init__(text)
        self.failure = Failure(fate, text, reason=reason, error=error, retry_after_s=retry_after_s, is_certain=is_certain)

    @classmethod
    def of(cls, failure: Failure) -> UpstreamError:
        """The exception that carries this failure, from a message for example: an exception itself does not travel."""
        made = cls(failure.fate, failure.text)
        made.failure = failure
        return made

    @property
    def fate(self) -> Fate:
        return self.failure.fate


class CredentialRefused(UpstreamError):
    """What the server was shown does not suffice: nothing has run. headers: of its answer, lower-case names."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(Fate.UNAUTHORIZED, f"the server does not accept what it was shown (status {status})")
        self.status = status
        self.headers = headers


_Answer = TypeVar("_Answer")


class ShowToken(Protocol):
    """Asks a server with the headers that show it who asks; where it refuses them, once more with fresh ones."""

    async def __call__(self, ask: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
        """What `ask` gives.

        ask: raises CredentialRefused where the server has refused the headers, and nothing has run.

        Raises: UpstreamError; whatever else `ask` raises.
        """


ConnectionToken = Callable[[BackendSettings], ShowToken | None]
"""How the connections to a backend, which all who use it share, show its token; None where it gets none."""


def shows_no_token(backend: BackendSettings) -> None:
    """A `ConnectionToken`: no backend gets any."""


async def ask_showing(show: ShowToken | None, ask: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
    """What `ask` gives, with the token where there is one to show."""
    return await ask({}) if show is None else await show(ask)


def refuses_credential(status: int, challenge: str) -> bool:
    """Whether an answer is about what the server was shown. challenge: its `WWW-Authenticate`. Source: RFC 6750, section 3.1."""
    return status == 401 or (status == 403 and "insufficient_scope" in challenge)


def only_legacy() -> UpstreamError:
    """A modern request has met a server of the other era."""
    return UpstreamError(Fate.UNSUPPORTED, "the server only speaks revisions with the initialize handshake")


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
