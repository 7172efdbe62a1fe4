"""What a conversation may do to the world around it, and how it says which call it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Raw
from thespian.actors import ActorAddress

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.curation.search_tools import SearchedList
from mcp_gateway.transports.protocol.curation.tool_index import ToolIndex
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message
from mcp_gateway.transports.protocol.merging.merged_server import PageStart
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.question_ids import QuestionId
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId


class CallWish(msgspec.Struct, frozen=True, kw_only=True):
    """One call that a conversation wants made. There is one for every call: a Struct takes a sixth of the time of an attrs class.

    message:       None where the kind says it all.
    backend:       "" where the router finds it by the target of the exchange.
    session:       whose conversation with the backend this belongs to.
    opens_session: an `initialize`, which no existing upstream session must pin to a replica.
    excluded:      replicas that have refused this very call already.
    deadline_s:    on the monotonic clock; None for that of the exchange.
    last_event_id: where a broken stream shall resume.
    hedges:        the call that another replica is asked beside, or 0.
    """

    message: Message | None
    kind: RequestKind = RequestKind.REQUEST
    backend: str = ""
    session: SessionState | None = None
    opens_session: bool = False
    excluded: frozenset[str] = frozenset()
    deadline_s: float | None = None
    last_event_id: str | None = None
    hedges: int = 0


class Desk(Protocol):
    """What a conversation may do to the world; the edge actor implements it."""

    server_info: dict[str, str]

    @property
    def searched_list(self) -> SearchedList | None:
        """What is shown of lists of tools; None where all of each is."""

    @property
    def view_number(self) -> int:
        """Rises when another cell, or another node, has come or gone: what a session has there may be elsewhere since."""

    def tool_index(self, tools: Sequence[Mapping[str, Raw]]) -> ToolIndex:
        """Of a list of tools, such as clients ask of again and again."""

    def namings(self, exchange: Exchange) -> tuple[Naming, ...]:
        """The backends behind the endpoint of an exchange, in the order of the configuration; of the merged server those of which
        its client may use something.
        """

    def instructions(self, exchange: Exchange) -> str:
        """What the client is told instead of the servers' own instructions; "" tells it those."""

    def merged_naming(self, backend: str) -> Naming | None:
        """How the merged server names what this backend offers; None where there is none of that name."""

    def call(self, exchange: Exchange, wish: CallWish) -> int:
        """Send one call on its way; gives its id."""

    def cancel(self, call_id: int) -> None: ...

    def hedge_after_s(self, backend: str) -> float:
        """How long a replica may take to answer before another one is asked as well; 0.0 for as long as it takes."""

    def may_retry(self, backend: str) -> bool:
        """Whether a request that a server may have seen is within the backend's retry budget; it is paid for then."""

    def dismiss(self, exchange: Exchange, session: SessionState, backend: str) -> None:
        """End a session at a server. It outlives the exchange, which does not hear how it went."""

    def grant(self, upstream: ActorAddress, call_id: int, event_count: int) -> None: ...

    def conclude(self, exchange: Exchange) -> None:
        """The exchange is over."""

    def retry_later(self, exchange: Exchange, delay_s: float, cause: str) -> None:
        """Call the conversation's `delay_passed(cause)` after the delay."""

    def fan_out_deadline_s(self, exchange: Exchange, backend: str) -> float:
        """When a question to several backends stops waiting for this one; soon, where it was late before."""

    def note_punctuality(self, backend: str, *, was_late: bool) -> None:
        """Whether a backend took part in an answer of several in time."""

    def note_flaw(self, backend: str, method: str, why: str) -> None:
        """A backend's answer could not be used whole. why: what is wrong, then details after a colon or a semicolon."""

    def use_session(self, state: SessionState) -> SessionState: ...

    def is_session_ended(self, state: SessionState) -> bool: ...

    def refresh_session(self, state: SessionState) -> SessionState:
        """The newest state that any cell knows."""

    def renew_session(self, state: SessionState, upstream: UpstreamSession) -> SessionState: ...

    def note_facts(self, state: SessionState, backend: str, method: str, params: bytes) -> SessionState:
        """A backend has accepted a request that changes what its session holds. params: as the backend knows them."""

    def tell_of_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        """Let the other cells know a session as it is now: True where there are none.

        Else the conversation's `delay_passed(told)` is called once they do, or have had enough time.
        """

    def end_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        """Refuse a session here at once, and in the other cells: True where there are none.

        Else the conversation's `delay_passed(told)` is called once they do, or have had enough time.
        """

    def issue_session(self, state: SessionState) -> str:
        """Keep a new session and give its id. Raises: Refused with too_large."""

    def remember_list(self, backend: str, method: str, revision: str, pages: Sequence[bytes]) -> None:
        """Keep a backend's list, in case that it does not answer the next time; not of one that lists to each user their own."""

    def may_hear(self, exchange: Exchange, backend: str, message: Message | None) -> bool:
        """Whether the client of a stream may still be told of what this backend says."""

    def shown_list(self, exchange: Exchange, backend: str, method: str, result: bytes) -> bytes:
        """One page of a backend's list, without what the client of the exchange may not use.

        Raises: msgspec.DecodeError where policies are asked and it is no such page.
        """

    def hold_pages(self, exchange: Exchange, pages: Mapping[PageStart, bytes]) -> None:
        """Keep the pages that follow one of a list for a while: {where it begins: result}. For the exchange's session alone, or
        where it has none for everybody.
        """

    def held_page(self, exchange: Exchange, start: PageStart) -> bytes | None:
        """A result that `hold_pages` was given, for a list of the same method."""

    def read_task(self, shown: str) -> TaskId | None:
        """What an id of a task says, or None for one that the gateway never sealed."""

    def name_question(self, question: QuestionId) -> bytes:
        """The id of a server's question towards the client, as JSON."""

    def read_question(self, shown: bytes) -> QuestionId | None:
        """The question that an id names, or None for one that the gateway never gave. shown: as JSON."""

    def last_known_list(self, backend: str, method: str, revision: str) -> tuple[tuple[bytes, ...], float] | None:
        """(pages, seconds since they were given)."""
