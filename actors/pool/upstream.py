"""The conversation with one replica: plays each leased call on the wire and tells the edge how it went."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw
from thespian.actors import ActorAddress

from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.forwarding.owned_conversation import OwnedConversation
from mcp_gateway.actors.forwarding.remote_conversation import RemoteConversation
from mcp_gateway.actors.forwarding.session_conversation import SessionConversation
from mcp_gateway.actors.messages.calls import (
    Call,
    CallAnswered,
    CallEvent,
    CallFailed,
    CallFaulted,
    CallRanLong,
    CallSucceeded,
    CallTimedOut,
    CancelCall,
    CreditGranted,
    LeaseCall,
    LeaseReturned,
    RunCall,
    TryAgain,
    UpstreamEnding,
)
from mcp_gateway.actors.messages.health import ProbeReplicas, ReplicaProbed
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.transports.ports.credit import EVENT_WINDOW, Credit
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.hash_keys import owner_of, principal_of
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.untasked_exchange import UntaskedExchange
from mcp_gateway.transports.ports.upstream_port import (
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.questions import MOST_QUESTIONS, one_question_too_many
from mcp_gateway.transports.protocol.eras.tool_catalogue import listed_names
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS, META_SUBSCRIPTION_ID, is_modern
from mcp_gateway.transports.protocol.mcp.trace_context import params_with_context
from mcp_gateway.transports.protocol.merging.list_bounds import bounded_list
from mcp_gateway.transports.protocol.merging.naming import Naming, inner_params
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.telemetry import metrics, tracing

from .task_naming import TaskNaming


@attrs.frozen(kw_only=True)
class UpstreamArguments:
    """What the connection pool tells a new upstream.

    connect: opens the wire; called once, on the event loop, by the cell that owns the connection.
    connect_owned: opens the wire under a fencing token, where the cluster has one such server; else None.
    is_one_of_several: the backend has other replicas, which know nothing of the tasks of this one.
    """

    replica: ReplicaId
    naming: Naming
    connect: Any = attrs.field(repr=False)
    connect_owned: Any = attrs.field(default=None, repr=False)
    cells: Forwarding = attrs.field(repr=False)
    seal: Seal = attrs.field(repr=False)
    is_one_of_several: bool = False


_REFUSAL_S: Final = 5.0  # within which a server has to take that it is not answered
_OPTIONAL_METHODS: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"})


@attrs.define
class _Running:
    """One call on the wire. asked: questions of the server meanwhile.

    cancel: ends its exchange, which holds this call: it goes when that is over, so that neither waits for the garbage collector.
    """

    leased: LeaseCall
    started_s: float
    asked: int = 0
    cancel: Callable[[], object] | None = None
    _credit: Credit | None = None

    @property
    def credit(self) -> Credit:
        """For events that its client has yet to take; most calls have none."""
        if self._credit is None:
            self._credit = Credit(EVENT_WINDOW)
        return self._credit

    def give_up(self) -> None:
        cancel, self.cancel = self.cancel, None
        if cancel is not None:
            cancel()


class Upstream(GatewayActor):
    """Speaks to one replica, any number of calls at once; the pool decides how many.

    Receives  RunCall, CancelCall, TryAgain (connection pool), CreditGranted (edge), ProbeReplicas (connection pool)
    Sends     CallAnswered, CallEvent, CallFailed (edge), LeaseReturned, UpstreamEnding (connection pool),
              CallFaulted, CallTimedOut, CallRanLong, CallSucceeded (router), ReplicaProbed (health monitor, router)
    On crash  its calls are answered with `upstream_failed`, its connections closed; the pool starts it again
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[int, _Running] = {}
        self._failing_routes: set[str] = set()
        self._success_counts: dict[str, int] = {}  # by route, since the router was last told of a call that was none
        self._probes = HeldTasks()
        self._has_told_of_names = False
        self._is_left_alone = False  # the wire has said when it tries its server again
        self._listed = b""  # the last page of tools

    def on_wired(self) -> None:
        arguments: UpstreamArguments = self.arguments
        self._replica = arguments.replica
        self._backend = arguments.replica.backend
        self._naming = arguments.naming
        self._merged_tasks = TaskNaming(arguments.seal, self._naming, self._replica.address)
        self._own_tasks = TaskNaming(arguments.seal, Naming(self._backend, ""), self._replica.address)
        self._is_one_of_several = arguments.is_one_of_several
        self._address = self.myAddress  # which Thespian looks up anew each time
        self._cells = arguments.cells
        self._wire: UpstreamConversation
        self._own_wire: UpstreamConversation
        self._is_owner = self._cells.owner_of(self._replica) == self._cells.cell_name
        if self._is_owner:
            self._connect()
        else:
            remote = RemoteConversation(self._cells, self._replica)
            self._wire = remote if arguments.connect_owned is not None else self._of_all_nodes(remote)

    def _connect(self) -> None:
        if self.arguments.connect_owned is not None:
            owned = OwnedConversation(self._cells, self._replica, self.arguments.connect_owned)
            self._wire = self._own_wire = owned
            self._cells.serve_owned(self._replica, owned, owned.carry_out)
            return
        self._own_wire = self.arguments.connect()
        self._wire = self._of_all_nodes(self._own_wire)
        self._cells.serve(self._replica, self._own_wire)

    def _of_all_nodes(self, wire: UpstreamConversation) -> UpstreamConversation:
        if not self._cells.node:
            return wire
        return SessionConversation(self._cells, self._replica, wire, self.arguments.seal)

    def receiveMsg_TryAgain(self, message: TryAgain, sender: ActorAddress) -> None:
        """A new wire has no failures to wait for. One that carries calls is no wire to a server that cannot be started."""
        is_left_alone = self._is_left_alone or self._cells.is_left_alone(self._replica)
        if is_left_alone and self._is_owner and not self._running:
            self._is_left_alone = False
            self._cells.withdraw(self._replica, self._own_wire)
            _closing.start(self._wire.close())
            self._connect()

    # ---- calls

    def receiveMsg_RunCall(self, message: RunCall, sender: ActorAddress) -> None:
        running = _Running(message.leased, time.monotonic())
        self._running[message.leased.call.call_id] = running
        try:
            exchange = self._exchange(running)
        except Exception as error:
            self._ended(running, error)
            return
        if isinstance(exchange, UntaskedExchange):
            running.cancel = exchange.cancel
            exchange.begin(functools.partial(self._ended, running))
        else:
            running.cancel = asyncio.get_running_loop().create_task(self._play(running, exchange)).cancel

    def receiveMsg_CancelCall(self, message: CancelCall, sender: ActorAddress) -> None:
        running = self._running.pop(message.call_id, None)
        if running is not None:
            running.give_up()

    def receiveMsg_CreditGranted(self, message: CreditGranted, sender: ActorAddress) -> None:
        running = self._running.get(message.call_id)
        if running is not None:
            running.credit.grant(message.event_count)

    async def _play(self, running: _Running, exchange: Coroutine[Any, Any, UpstreamAnswer]) -> None:
        outcome: UpstreamAnswer | BaseException
        try:
            outcome = await exchange
        except asyncio.CancelledError as error:
            if running.leased.call.call_id not in self._running:
                raise  # by the caller, or because this actor ends
            outcome = error
        except Exception as error:
            outcome = error
        self._ended(running, outcome)
        del outcome  # an error holds this frame

    def _ended(self, running: _Running, ended: UpstreamAnswer | BaseException) -> None:
        """Post the outcome of a call, and its lease, in one go."""
        call = running.leased.call
        if call.call_id not in self._running:
            return
        elapsed_s = time.monotonic() - running.started_s
        served_s: float | None = None
        outcome: object
        report: object | None = None
        try:
            if isinstance(ended, UpstreamAnswer):
                served_s = elapsed_s
                outcome = self._answered(call, ended, elapsed_s)
                report = self._success(running.leased, elapsed_s)
            elif isinstance(ended, UpstreamError):
                if ended.fate is Fate.TIMED_OUT:
                    served_s = elapsed_s
                self._is_left_alone = ended.failure.retry_after_s is not None
                outcome = self._failed(call, ended.failure, elapsed_s)
                # A server that is not there is not there for calls either.
                tells_of_calls = ended.fate is Fate.UNREACHABLE or not _is_side_channel(call)
                report = self._verdict(running.leased, ended.failure) if tells_of_calls else None
            elif isinstance(ended, asyncio.CancelledError):
                # By whoever owns the connection: a session that was ended, or evicted, with calls under way.
                outcome = self._failed(call, Failure(Fate.ENDED, "the connection ended the call"), elapsed_s)
            else:
                raise ended
        except Exception as error:  # a defect of ours must not leave a client waiting
            self.log(logging.ERROR, f"exchange failed: {error!r}", error=error, call_id=call.call_id)
            outcome = self._failed(call, Failure(Fate.ENDED, "internal error"), elapsed_s)
        del self._running[call.call_id]
        running.cancel = None
        returned = LeaseReturned(self._replica, call.call_id, served_s)
        # The edge comes last: its next try must find the lease free and the trial over.
        mail: list[tuple[ActorAddress, object]] = [(self.addresses["supervisor"], returned), (call.edge, outcome)]
        if report is not None:
            mail.insert(0, (running.leased.router, report))
        assert self.runtime is not None
        self.runtime.post_all(mail)

    def _exchange(self, running: _Running) -> Coroutine[Any, Any, UpstreamAnswer]:
        call = running.leased.call
        upstream = call.session.upstream(self._backend) if call.session is not None and not call.opens_session else None
        timeout_s = None if call.kind is RequestKind.STREAM else max(0.001, call.deadline_s - time.monotonic())
        span = self._span(call)
        headers = call.headers if span is None else span.headers
        tasks = self._task_naming(call)
        request = UpstreamRequest(
            kind=call.kind,
            message=self._inner_message(call, headers, tasks),
            revision=call.revision if upstream is None else upstream.revision,
            session_id=None if upstream is None else upstream.session_id,
            headers=headers,
            has_headers=call.transport == "streamable_http" and not call.is_rewritten,
            timeout_s=timeout_s,
            last_event_id=call.last_event_id,
            session=call.session,
            hash_keys=call.hash_keys,
        )

        owner = "" if tasks is None else owner_of(call.hash_keys)

        async def on_event(event: Message | None, event_id: str | None) -> None:
            if isinstance(event, Request) and call.kind is RequestKind.REQUEST:
                running.asked += 1
                if running.asked > MOST_QUESTIONS:
                    metrics.bounds_reached_total.labels("questions").inc()
                    await self._refuse_question(request, one_question_too_many(event))
                    return
            byte_count = 0 if event is None else jsonrpc.size_bytes(event)
            if not running.credit.take_now(byte_count):
                await running.credit.take(byte_count)
            if event is not None and tasks is not None:
                event = tasks.outer(event, owner)
            if call.kind is RequestKind.STREAM:
                event = _under_its_own_id(call, event)
            assert self.runtime is not None
            self.runtime.post(call.edge, CallEvent(call.call_id, self._backend, event, event_id, self._address))

        exchange = self._wire.exchange(request, on_event)
        return exchange if span is None else _traced(span, exchange)

    async def _refuse_question(self, request: UpstreamRequest, answer: Response) -> None:
        """The call that it was asked for goes on, and no faster than its server takes these."""
        told = msgspec.structs.replace(request, kind=RequestKind.MESSAGE, message=answer, timeout_s=_REFUSAL_S)
        with contextlib.suppress(UpstreamError):
            await self._wire.exchange(told, ignore_events)

    def _span(self, call: Call) -> tracing.Span | None:
        if tracing.tracer is None:
            return None
        message = call.message
        method = message.method if isinstance(message, Request | Notification) else call.kind.value
        about = {"mcp_gateway.backend": self._backend, "mcp_gateway.replica": self._replica.address}
        return tracing.tracer.client_span(method, call.target, call.headers, about)

    def _inner_message(self, call: Call, headers: Mapping[str, str], tasks: TaskNaming | None) -> Message | None:
        """The message as the server shall see it: its own names, and for a stateless server an id that no other client uses."""
        message = call.message
        if message is not None and tasks is not None:
            message = tasks.inner(message)
        if not isinstance(message, Request):
            return message
        params = inner_params(self._naming, message.method, message.params) if call.is_merged else message.params
        if "traceparent" in headers:  # a server without HTTP headers reads it there, and one with them may
            params = params_with_context(params, headers)
        request_id = b"%d" % call.call_id if is_modern(call.revision) else message.id
        return Request(request_id, message.method, params)

    def _task_naming(self, call: Call) -> TaskNaming | None:
        """How tasks are called towards this client, or None where they keep the server's own ids: no other server is there, and
        nobody is known whose they could be.
        """
        if call.is_merged and self._naming.prefix:
            return self._merged_tasks
        if principal_of(call.hash_keys):
            return self._own_tasks
        return self._own_tasks if self._is_one_of_several and is_modern(call.revision) else None

    def _answered(self, call: Call, answer: UpstreamAnswer, upstream_s: float) -> CallAnswered:
        response = answer.response
        if response is not None and isinstance(call.message, Request):
            response = response.to(call.message.id)
            if call.message.method in LIST_MEMBERS:
                response = self._bounded(call.message.method, response)
            if call.kind is RequestKind.STREAM and response.result:
                response = Response(response.id, _with_subscription_id(response.result, call.message.id), b"")
            if (tasks := self._task_naming(call)) is not None:
                response = tasks.outer_answer(call.message, response, owner_of(call.hash_keys))
        return CallAnswered(
            call_id=call.call_id,
            backend=self._backend,
            replica=self._replica.address,
            status=_shown_status(answer.status, call.revision),
            response=response,
            upstream_session_id=answer.session_id,
            upstream_revision=answer.revision,
            upstream_s=upstream_s,
        )

    def _learn_tools(self, result: bytes) -> None:
        """The names of its tools, alone and in the merged server, are known to metrics from now on."""
        names = listed_names(result)
        metrics.tool_label.learn(self._backend, names)
        if self._naming.prefix:
            metrics.tool_label.learn(self._backend, (f"{self._naming.prefix}{name}" for name in names))

    def _bounded(self, method: str, response: Response) -> Response:
        """A list as clients may have it."""
        result, changed = bounded_list(method, response.result)
        if changed:
            metrics.bounds_reached_total.labels("names").inc(changed)
        if changed and not self._has_told_of_names:
            self._has_told_of_names = True
            what = f"{changed} left out of {method} or cut, named or described at a length that nobody can use"
            self.log(logging.WARNING, f"backend {self._backend!r}: {what}")
        if method == "tools/list" and result != self._listed:
            self._listed = result
            self._learn_tools(result)
        return Response(response.id, result, response.error) if changed else response

    def _failed(self, call: Call, failure: Failure, upstream_s: float) -> CallFailed:
        return CallFailed(
            call_id=call.call_id,
            why=attrs.evolve(failure, text=f"backend {self._backend!r}: {failure.text}"),
            backend=self._backend,
            replica=self._replica.address,
            upstream_s=upstream_s,
        )

    def _verdict(self, leased: LeaseCall, why: Failure) -> CallSucceeded | CallRanLong | CallFaulted | CallTimedOut | None:
        """A server that was there to refuse is well; of one that was never asked, or not heard out, nothing is known.

        Of one that was too slow for this call, wherever on its way that was, neither: it may be busy with another client's calls.
        """
        if why.fate.is_fault and why.reason == "upstream_timeout":
            self._failing_routes.add(leased.route)
            return CallTimedOut(leased.route, self._replica)
        if not why.fate.is_verdict:
            return None
        return self._fault(leased) if why.fate.is_fault else self._success(leased)

    def _success(self, leased: LeaseCall, elapsed_s: float = 0.0) -> CallSucceeded | CallRanLong | None:
        """The breaker hears of a success when it waits for one, and of how many there were when a call goes wrong."""
        route = leased.route
        if leased.is_trial or route in self._failing_routes:
            self._failing_routes.discard(route)
            self._success_counts[route] = self._success_counts.get(route, 0) + 1
            return CallSucceeded(route, self._replica)
        if elapsed_s > leased.slow_after_s:
            return CallRanLong(route, self._replica, leased.call.client, self._success_counts.pop(route, 0))
        self._success_counts[route] = self._success_counts.get(route, 0) + 1
        return None

    def _fault(self, leased: LeaseCall) -> CallFaulted:
        self._failing_routes.add(leased.route)
        return CallFaulted(leased.route, self._replica, leased.call.client, self._success_counts.pop(leased.route, 0))

    # ---- probes

    def receiveMsg_ProbeReplicas(self, message: ProbeReplicas, sender: ActorAddress) -> None:
        self._probes.start(self._probe(message))

    async def _probe(self, message: ProbeReplicas) -> None:
        started_s = time.monotonic()
        problem, is_starting, is_certain, retry_after_s = "", False, False, None
        try:
            async with asyncio.timeout(message.timeout_s):
                await self._wire.probe(message.timeout_s)
        except UpstreamError as error:
            why = error.failure
            problem, is_starting, is_certain = why.text, why.fate is Fate.STARTING, why.is_certain
            retry_after_s = why.retry_after_s
            self._is_left_alone = retry_after_s is not None
        except TimeoutError:
            problem = "no answer in time"
        probed = ReplicaProbed(
            request_id=message.request_id,
            replica=self._replica,
            problem=problem,
            is_starting=is_starting,
            is_certain=is_certain,
            elapsed_s=time.monotonic() - started_s,
            retry_after_s=retry_after_s,
        )
        assert self.runtime is not None
        self.runtime.post(message.asker, probed)
        if message.replica is None:  # the monitor's round, not a question of the router's
            self._cells.tell_cells(probed)

    # ---- the end

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, RunCall):  # answered with the others at the end, which comes at once
            self._running.setdefault(message.leased.call.call_id, _Running(message.leased, time.monotonic()))

    def on_exit(self) -> None:
        self._probes.cancel()
        ended, self._running = self._running, {}
        for running in ended.values():
            running.give_up()
            restarted = Failure(Fate.ENDED, "the connection was restarted while the request ran")
            self.send(running.leased.call.edge, self._failed(running.leased.call, restarted, 0.0))
        self.send(self.addresses["supervisor"], UpstreamEnding(self._replica, frozenset(ended)))
        self._cells.withdraw(self._replica, self._wire)
        _closing.start(self._wire.close())


_closing = HeldTasks()
"""Wires that are being closed."""


async def wires_closed(timeout_s: float) -> None:
    """Wait, within a bound, until all wires of upstreams that have ended are closed."""
    await _closing.wait(timeout_s)


async def _traced(span: tracing.Span, exchange: Coroutine[Any, Any, UpstreamAnswer]) -> UpstreamAnswer:
    outcome = "cancelled"
    try:
        answer = await exchange
        outcome = "ok" if answer.status < 400 else "error"
        return answer
    except UpstreamError as error:
        outcome = error.failure.reason
        raise
    finally:
        span.end(outcome)


def _is_side_channel(call: Call) -> bool:
    """Whether calls go on as well without it: how a server fails at it says nothing of how it serves them.

    Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server" and "Session Management": a server may
    offer neither stream nor end; server/utilities/logging and server/resources, "Capabilities": both are optional.
    """
    if call.kind in (RequestKind.STREAM, RequestKind.TERMINATE):
        return True
    return isinstance(call.message, Request) and call.message.method in _OPTIONAL_METHODS


def _shown_status(status: int, revision: str) -> int:
    """The HTTP status for the client: 401 or a legacy 404 would say something of its own credentials or session here.

    Source: MCP 2026-07-28, basic/transports/streamable-http: the statuses that errors have; earlier ones answer with 200.
    """
    return status if status < 400 or status == 400 or (status == 404 and is_modern(revision)) else 200


def _under_its_own_id(call: Call, event: Message | None) -> Message | None:
    """What comes on a stream, without the id that its server saw where a notification repeats it."""
    if not isinstance(event, Notification) or not isinstance(call.message, Request):
        return event
    return Notification(event.method, _with_subscription_id(event.params, call.message.id))


def _with_subscription_id(json_object: bytes, request_id: bytes) -> bytes:
    try:
        values = jsonrpc.members(json_object)
        meta = jsonrpc.members(values["_meta"])
    except (KeyError, msgspec.DecodeError):
        return json_object
    if META_SUBSCRIPTION_ID not in meta:
        return json_object
    meta[META_SUBSCRIPTION_ID] = Raw(request_id)
    values["_meta"] = Raw(msgspec.json.encode(meta))
    return msgspec.json.encode(values)
