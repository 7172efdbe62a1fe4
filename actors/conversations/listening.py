"""`subscriptions/listen` of the merged server: one stream out of those of its backends."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
from msgspec import Raw

from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import owner_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.change_notifications import ACKNOWLEDGED, LIST_CHANGES
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS
from mcp_gateway.transports.protocol.mcp.revisions import META_SUBSCRIPTION_ID
from mcp_gateway.transports.protocol.mcp.tasks import TASK_SUBSCRIPTIONS, declares_extension, undeclared_tasks
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId

from .conversation import Conversation, may_go_elsewhere
from .desk import CallWish, Desk
from .relay import RelayRequest


class ListenAlone(RelayRequest):
    """`subscriptions/listen` of one backend: its stream as it is, with an end of our own when the gateway drains."""

    def end(self) -> None:
        request_id = self._request_id() or jsonrpc.NULL
        self._answer(200, graceful_end(request_id), {}, "", 0.0)


class Listen(Conversation):
    """`subscriptions/listen` of the merged server: one stream out of those of its backends.

    The acknowledgment comes first and names what any server honours; a server that has not said so in ACKNOWLEDGE_S is no longer
    waited for. Events that come earlier are held. A server whose part has ended, while others go on, is asked again after growing
    pauses: while its probes fail the router refuses that without asking it. When it listens, the client is told that its lists
    have changed.

    Source: MCP 2026-07-28, basic/patterns/subscriptions, "Acknowledgment" and "Graceful Closure".
    """

    ACKNOWLEDGE_S = 5.0
    JOIN_S = 1.0  # until a backend that was added is asked: every cell knows it by then, and its upstream runs
    AGAIN_S = 1.0
    LONGEST_AGAIN_S = 10.0
    """Until a backend that has failed, or ended its part, is asked again: the wait doubles up to this while it is in vain."""

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        super().__init__(exchange, sink, desk)
        self._namings = {naming.backend: naming for naming in desk.namings(exchange)}
        self._parameters: dict[str, Raw] = {}
        self._wanted: dict[str, object] = {}
        self._uris: list[str] = []
        self._tasks: list[tuple[str, str]] = []  # (backend, id) of those that it wants to hear of
        self._parts: dict[str, Request] = {}  # of the backends that are configured
        self._excluded: dict[str, frozenset[str]] = {}
        self._acknowledged: dict[str, dict[str, object]] = {}
        self._silent: set[str] = set()
        self._backend_of: dict[int, str] = {}
        self._held: list[tuple[CallEvent, bytes]] = []
        self._vain: Counter[str] = Counter()  # how often in a row each was asked again and has not listened for long
        self._asked_s: dict[str, float] = {}

    def _start(self) -> None:
        message = self.exchange.message
        assert isinstance(message, Request)
        self._parameters = jsonrpc.members(message.params)
        self._wanted = msgspec.json.decode(self._parameters.get("notifications", Raw(b"{}")), type=dict)
        self._uris = msgspec.convert(self._wanted.pop("resourceSubscriptions", []), list[str])
        shown_tasks = msgspec.convert(self._wanted.pop(TASK_SUBSCRIPTIONS, []), list[str])
        if shown_tasks and not declares_extension(message.params):
            self._refuse(undeclared_tasks(message.id), "")
            return
        self._tasks = [(task.backend, shown) for shown in shown_tasks if (task := self._own_task(shown)) is not None]
        for naming in self._namings.values():
            self._parts[naming.backend] = self._part(naming)
            self._ask(naming.backend)
        self.desk.retry_later(self.exchange, self.ACKNOWLEDGE_S, "")

    def _part(self, naming: Naming) -> Request:
        """What one backend is asked to listen to."""
        message = self.exchange.message
        assert isinstance(message, Request)
        own = [naming.inner_uri(uri) for uri in self._uris if naming.has_uri(uri)]
        tasks = [shown for backend, shown in self._tasks if backend == naming.backend]
        part = {
            **self._wanted,
            **({"resourceSubscriptions": own} if own else {}),
            **({TASK_SUBSCRIPTIONS: tasks} if tasks else {}),
        }
        return Request(message.id, message.method, msgspec.json.encode({**self._parameters, "notifications": part}))

    def _own_task(self, shown: str) -> TaskId | None:
        """The task of this very client behind an id; of any other one it hears nothing."""
        task = self.desk.read_task(shown)
        return task if task is not None and task.principal == owner_of(self.exchange.hash_keys) else None

    def backends_changed(self) -> None:
        """Ask those that are new, and have the client ask again for the lists that it follows."""
        configured = {naming.backend: naming for naming in self.desk.namings(self.exchange)}
        self._parts = {backend: part for backend, part in self._parts.items() if backend in configured}
        for backend in configured.keys() - self._parts.keys():
            self._namings[backend] = configured[backend]
            self._parts[backend] = self._part(configured[backend])
            self._silent.discard(backend)
            self.desk.retry_later(self.exchange, self.JOIN_S, backend)
        if self._has_begun:
            self._tell_changes()

    def _tell_changes(self) -> None:
        """Have the client ask again for the lists that it follows."""
        params = msgspec.json.encode({"_meta": {META_SUBSCRIPTION_ID: Raw(self._request_id() or jsonrpc.NULL)}})
        for method, member in LIST_CHANGES.items():
            if self._wanted.get(member):
                self._tell_change(method, params)

    def _ask(self, backend: str) -> None:
        excluded = self._excluded.get(backend, frozenset())
        part = self._parts[backend]
        call_id = self._call(
            CallWish(message=part, kind=RequestKind.STREAM, backend=backend, excluded=excluded, deadline_s=float("inf"))
        )
        self._backend_of[call_id] = backend
        self._asked_s[backend] = time.monotonic()

    def _on_event(self, event: CallEvent) -> None:
        message = event.message
        if not isinstance(message, Notification):
            self.desk.grant(event.upstream, event.call_id, 1)
            return
        naming = self._namings[event.backend]
        if message.method == ACKNOWLEDGED:
            self.desk.grant(event.upstream, event.call_id, 1)
            self._acknowledged[event.backend] = _honoured(naming, message.params)
            if self._has_begun:  # it is late, as one that starts slowly is: its lists are not among those that the client has
                self._tell_changes()
            self._acknowledge_when_all_have()
            return
        data = self._outer(naming, event, None)
        if self._has_begun:
            self._forward_merged(event, data, None)
        else:
            self._held.append((event, data))

    def _on_answer(self, answer: CallAnswered) -> None:
        is_refusal = answer.response is not None and bool(answer.response.error)
        self._lose(self._backend_of.pop(answer.call_id), None, may_come_back=not is_refusal)

    def _on_failure(self, failure: CallFailed) -> None:
        backend = self._backend_of.pop(failure.call_id)
        tried = self._excluded.get(backend, frozenset())
        if backend in self._parts and may_go_elsewhere(failure, tried):
            self._excluded[backend] = tried | {failure.replica}
            self._ask(backend)
        else:
            self._lose(backend, failure, may_come_back=_may_come_back(failure))

    def _lose(self, backend: str, failure: CallFailed | None, *, may_come_back: bool) -> None:
        self._silent.add(backend)
        if self._acknowledged:
            self._acknowledge_when_all_have()
        if may_come_back and self._open_calls and backend in self._parts:
            self._ask_again_later(backend)
        if self._open_calls or (self._has_begun and backend not in self._parts):  # removed: others may come
            return
        if self._has_begun or failure is None:
            self.end()
        else:
            self._refuse(self._refusal_for(failure), failure.backend)

    def _ask_again_later(self, backend: str) -> None:
        if time.monotonic() - self._asked_s[backend] > self.LONGEST_AGAIN_S:
            del self._vain[backend]  # it was there for a while
        delay_s = min(self.LONGEST_AGAIN_S, self.AGAIN_S * 2.0 ** min(self._vain[backend], 16))
        self._vain[backend] += 1
        self.desk.retry_later(self.exchange, delay_s, backend)

    def retry(self, backend: str) -> None:
        """A backend is new, or worth another try; or ACKNOWLEDGE_S have passed: one server that says nothing does not keep the
        others waiting.
        """
        if backend in self._parts and not self._is_over:
            if backend not in self._backend_of.values():
                self._excluded.pop(backend, None)
                self._ask(backend)
        elif not backend and not self._is_over:
            self._silent |= self._namings.keys()
            self._acknowledge_when_all_have()

    def _acknowledge_when_all_have(self) -> None:
        if self._has_begun or len(self._acknowledged.keys() | self._silent) < len(self._namings):
            return
        united: dict[str, object] = {}
        if len(self._acknowledged) < len(self._namings):  # of a server that is late the gateway itself tells when it has come
            united = {member: True for member in LIST_CHANGES.values() if self._wanted.get(member)}
        for honoured in self._acknowledged.values():
            for key, value in honoured.items():
                known = united.get(key, value)
                if key in united and isinstance(known, list) and isinstance(value, list):
                    united[key] = known + value
                else:
                    united[key] = known or value
        self._has_begun = True
        self.sink.begin({})
        meta = {META_SUBSCRIPTION_ID: Raw(self._request_id() or jsonrpc.NULL)}
        self._write(jsonrpc.encode_notification(ACKNOWLEDGED, msgspec.json.encode({"_meta": meta, "notifications": united})))
        held, self._held = self._held, []
        for event, data in held:
            self._forward_merged(event, data, None)

    def end(self) -> None:
        request_id = self._request_id() or jsonrpc.NULL
        self._answer(200, graceful_end(request_id), {}, "", 0.0)


def _may_come_back(failure: CallFailed) -> bool:
    """Whether its server may do later what it does not do now: it is not there, or fails. One that refuses will do it again."""
    return failure.why.fate not in (Fate.REFUSED, Fate.UNSUPPORTED) and REFUSALS[failure.why.reason].status >= 500


def graceful_end(request_id: bytes) -> bytes:
    """The response that ends a subscription in good order."""
    return jsonrpc.encode_result(request_id, {"resultType": "complete", "_meta": {META_SUBSCRIPTION_ID: Raw(request_id)}})


def _honoured(naming: Naming, params: bytes) -> dict[str, object]:
    """What a server's acknowledgment grants, resources by their outer names; nothing where it cannot be read."""
    try:
        honoured: dict[str, object] = msgspec.json.decode(jsonrpc.members(params).get("notifications", Raw(b"{}")), type=dict)
        if "resourceSubscriptions" in honoured:
            uris = msgspec.convert(honoured["resourceSubscriptions"], list[str])
            honoured["resourceSubscriptions"] = [naming.outer_uri(uri) for uri in uris]
    except msgspec.DecodeError:
        return {}
    return honoured
