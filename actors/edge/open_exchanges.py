"""The exchanges of a cell that have no answer yet: who waits, which conversation serves it, by which calls. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from mcp_gateway.actors.conversations.conversation import Conversation
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.sealed.session import SessionState


class OpenExchanges:
    """What waits for an answer, and who works on it. Clients wait through a crash of the edge actor, conversations do not.

    An exchange waits from `open` to `settle`; in between it is served once a conversation takes it up. Whoever settles it has
    ended its calls.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Exchange, AnswerSink]] = {}
        self._conversations: dict[int, Conversation] = {}
        self._exchange_of_call: dict[int, int] = {}
        self._streams: dict[str, set[int]] = {}  # {session key: ids of the exchanges that are its streams}

    # ---- exchanges

    @property
    def waiting(self) -> Mapping[int, tuple[Exchange, AnswerSink]]:
        """{exchange id: the exchange, where its answer goes}, as of now and later: a copy is up to the reader."""
        return self._waiting

    def open(self, exchange: Exchange, sink: AnswerSink) -> None:
        """A client waits from now on."""
        self._waiting[exchange.exchange_id] = (exchange, sink)

    def serve(self, conversation: Conversation) -> None:
        """This conversation has taken up its exchange."""
        exchange = conversation.exchange
        self._conversations[exchange.exchange_id] = conversation
        if exchange.kind is RequestKind.STREAM and exchange.session is not None:
            self._streams.setdefault(exchange.session.key, set()).add(exchange.exchange_id)

    def settle(self, exchange_id: int) -> None:
        """Nobody waits any more; again or of an unknown exchange, nothing happens."""
        self._waiting.pop(exchange_id, None)
        conversation = self._conversations.pop(exchange_id, None)
        if conversation is None or conversation.exchange.kind is not RequestKind.STREAM:
            return
        session = conversation.exchange.session
        if session is not None and (streams := self._streams.get(session.key)) is not None:
            streams.discard(exchange_id)
            if not streams:
                del self._streams[session.key]

    def conversation(self, exchange_id: int) -> Conversation | None:
        return self._conversations.get(exchange_id)

    def conversations(self) -> list[Conversation]:
        return list(self._conversations.values())

    def unserved(self) -> list[tuple[Exchange, AnswerSink]]:
        """What waits for a conversation."""
        return [waits for exchange_id, waits in self._waiting.items() if exchange_id not in self._conversations]

    def start_over(self) -> None:
        """The conversations are lost, and with them their calls: all that waits is unserved again."""
        self._conversations.clear()
        self._exchange_of_call.clear()
        self._streams.clear()

    # ---- calls

    @property
    def calls(self) -> list[int]:
        """Ids of the calls under way."""
        return list(self._exchange_of_call)

    def begin_call(self, call_id: int, exchange_id: int) -> None:
        self._exchange_of_call[call_id] = exchange_id

    def of_call(self, call_id: int) -> Conversation | None:
        """The conversation that has made the call, while it waits for its outcome."""
        return self._conversations.get(self._exchange_of_call.get(call_id, 0))

    def end_call(self, call_id: int) -> Conversation | None:
        """The call has its outcome, or nobody wants it any more; gives what waited for it."""
        return self._conversations.get(self._exchange_of_call.pop(call_id, 0))

    # ---- streams of sessions

    def of_session(self, key: str) -> list[Conversation]:
        """The streams of a session."""
        return [self._conversations[exchange_id] for exchange_id in self._streams.get(key, ())]

    def next_sessions(self, count: int) -> list[SessionState]:
        """So many of the sessions that have streams, each in its turn, as their streams know them."""
        sessions = []
        for key in list(itertools.islice(self._streams, count)):
            exchange_ids = self._streams[key] = self._streams.pop(key)  # at the end of the queue
            session = self._conversations[next(iter(exchange_ids))].exchange.session
            assert session is not None
            sessions.append(session)
        return sessions

    def assert_consistent(self) -> None:
        """Raises: AssertionError."""
        assert self._conversations.keys() <= self._waiting.keys(), "a conversation that nobody waits for"
        assert self._conversations.keys() >= set(self._exchange_of_call.values()), "a call whose outcome nobody wants"
        streams: dict[str, set[int]] = {}
        for exchange_id, conversation in self._conversations.items():
            exchange = conversation.exchange
            assert exchange.exchange_id == exchange_id
            if exchange.kind is RequestKind.STREAM and exchange.session is not None:
                streams.setdefault(exchange.session.key, set()).add(exchange_id)
        assert self._streams == streams
