"""Modern clients of a legacy server: pooled sessions, parked calls, subscriptions.

Source: MCP 2026-07-28, basic/patterns/mrtr, basic/patterns/subscriptions; MCP 2025-11-25, basic/lifecycle.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from contextlib import suppress

import attrs
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import holder_of
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.questions import (
    MAY_NEED_INPUT,
    can_be_asked,
    capability_problem,
    input_required,
    missing_capability,
    url_elicitations,
)
from mcp_gateway.transports.protocol.eras.tasks import created_task, unknown_task
from mcp_gateway.transports.protocol.eras.tool_catalogue import AnnouncedHeaders
from mcp_gateway.transports.protocol.eras.translation import (
    ModernRequest,
    discover_result,
    modern_error,
    modern_request,
    modern_result,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import URL_ELICITATION_REQUIRED, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.mcp.tasks import missing_extension, offers_task_calls, task_id_of
from mcp_gateway.transports.protocol.sealed.call_state import CallState, read_state, request_digest, sealed_state, state_problem
from mcp_gateway.transports.protocol.sealed.kept_handshake import kept_client

from .bridge_site import BridgeSite
from .parkable_call import ParkableCall, Round
from .server_sessions import ServerSession, ServerSessions, SessionKey
from .subscription_hub import Listener, Relayed, SubscriptionHub
from .task_host import TaskHost
from .task_work import ServerTask
from .tool_support import FORBIDDEN, READING_S, ToolSupport, tool_name

_RELAY_AGAIN_S = 1.0
_LOST = "the call was lost with the process that held it; it may have run and was NOT run again"


class ModernToLegacy:
    """One legacy server as modern clients see it. Every call of it runs on one session and is answered once.

    A call whose server asks something is parked: its client is told, and its retry goes on with that very call.
    has_streams: every request has a stream of its own (Streamable HTTP), which tells whose question it is.
    """

    def __init__(
        self,
        wire: UpstreamConversation,
        site: BridgeSite,
        tasks: TaskHost,
        *,
        replica: ReplicaId,
        revision: str,
        has_streams: bool,
    ) -> None:
        self._wire = wire
        self._tasks = tasks
        self._site = site
        self._replica = replica
        self._has_streams = has_streams
        self._incarnation = secrets.token_urlsafe(6)
        self.sessions = ServerSessions(wire, revision)
        self._parked: dict[str, ParkableCall] = {}
        self._hubs: dict[SessionKey, SubscriptionHub] = {}
        self._announced = AnnouncedHeaders()
        self._support = ToolSupport()

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if not isinstance(message, Request):
            return UpstreamAnswer(202, None)  # a modern client over HTTP has nothing to notify of
        current = Round(request, message, _read(message), on_event)
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._serve(current)
        except TimeoutError:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None

    async def _serve(self, current: Round) -> UpstreamAnswer:
        if current.message.method == "server/discover":
            return await self._discover(current)
        if current.message.method == "subscriptions/listen":
            await self._listen(current)
            return UpstreamAnswer(200, None)
        if current.message.method in TASK_METHODS:  # and it is none of those that the gateway runs
            if not current.knows_tasks:
                return current.refused(missing_extension(), 400)
            return current.refused(unknown_task(task_id_of(current.message.params) or ""), 400)
        if current.modern.request_state is not None:
            return await self._resume(current)
        return await self._begin(current)

    async def close(self) -> None:
        for hub in list(self._hubs.values()):
            hub.close()
        for call in list(self._parked.values()):
            self._drop(call)
        await self.sessions.close()

    def _forget_hub(self, key: SessionKey) -> None:
        self._hubs.pop(key, None)

    # ---- one call

    async def _begin(self, current: Round) -> UpstreamAnswer:
        """Run the request. A server that has lost the session did not run it, so it may be sent once more."""
        if current.request.has_headers and current.message.method == "tools/call":
            self._check_headers(current)
        for _ in range(2):
            call = await self._start(current)
            if call is None:
                return current.refused(missing_extension(), 400)
            answer = await self._attend(call, current)
            if answer is not None:
                return answer
        raise UpstreamError(Fate.BROKEN, "the server lost its session twice")

    def _check_headers(self, current: Round) -> None:
        params = current.modern.params
        try:
            name = msgspec.json.decode(params.get("name", msgspec.Raw(b'""')), type=str)
            problem = self._announced.problem(name, bytes(params.get("arguments", msgspec.Raw(b""))), current.request.headers)
        except (msgspec.DecodeError, RecursionError):
            return  # the server shall say what is wrong with it
        if problem:
            raise _refusal("header_mismatch", problem)

    async def _start(self, current: Round) -> ParkableCall | None:
        """None where the tool is nothing but a task, and the client does not know any."""
        session = await self._lend(current)
        first: Round | None = None
        try:
            hub = self._hubs.get(session.key)
            if hub is not None:
                await hub.adopt(session)
            first = await self._augmented(session, current)
        finally:
            if first is None:
                self.sessions.give_back(session)
        if first is None:
            return None
        call = self._call(session, first)
        if "task" in first.modern.params:
            call.is_augmented = True
            self.sessions.share(session)  # whose task it will be; let go of in `_forget`
        return call

    def _call(self, session: ServerSession, first: Round) -> ParkableCall:
        return ParkableCall(self._wire, self.sessions, session, first, functools.partial(self._hubs.get, session.key))

    async def _augmented(self, session: ServerSession, current: Round) -> Round | None:
        """The call of a tool, as a task of the server where both sides can have it so; None where they cannot agree.

        Source: MCP 2025-11-25, basic/utilities/tasks, "Tool-Level Negotiation"; SEP-2663, "Capability Negotiation": whether there
        will be a task is the server's choice, whose place the gateway takes. A client's wish for one has no meaning there.
        """
        if current.message.method != "tools/call":
            return current
        params = {name: value for name, value in current.modern.params.items() if name != "task"}
        list_tools = functools.partial(self.sessions.ask, session, "tools/list", timeout_s=READING_S)
        has_tasks = offers_task_calls(session.initialized.get("capabilities"))
        support = await self._support.of(tool_name(current.modern.params), list_tools, has_tasks=has_tasks)
        if support == "required" and not current.knows_tasks:
            return None
        if support != FORBIDDEN and current.knows_tasks:
            params["task"] = msgspec.Raw(msgspec.json.encode({"ttl": int(self._site.tasks.limits.ttl_s * 1000)}))
        return attrs.evolve(current, modern=attrs.evolve(current.modern, params=params))

    async def _lend(self, current: Round) -> ServerSession:
        return await self.sessions.lend(self._key(current), current.modern.log_level)

    def _key(self, current: Round) -> SessionKey:
        modern = current.modern
        # Calls of a session without streams share one channel, and a question or a log message could be meant for any of them.
        is_exclusive = not self._has_streams and (can_be_asked(modern.capabilities) or modern.log_level is not None)
        try:
            info, capabilities = kept_client(modern.client_info, msgspec.json.encode(modern.capabilities, order="deterministic"))
        except Refused as refused:
            raise _refusal(refused.reason, refused.text) from None
        return SessionKey(
            principal=current.owner,
            client_info=info,
            capabilities=capabilities,
            log_level=None if is_exclusive else modern.log_level,
            is_exclusive=is_exclusive,
        )

    def _hub(self, key: SessionKey) -> SubscriptionHub:
        hub = self._hubs.get(key)
        if hub is None:
            forget = functools.partial(self._forget_hub, key)
            hub = SubscriptionHub(self._wire, self.sessions, key, forget)
            self._hubs[key] = hub
        return hub

    async def _attend(self, call: ParkableCall, current: Round) -> UpstreamAnswer | None:
        """Serve one round of the call; None where the server did not know the session."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if call.is_augmented else self._patience_s(current)):
                    await call.attend(current)
        except BaseException:
            self._drop(call)
            raise
        if call.outcome is None:
            return self._park(call, current) if call.questions else self._host(call, current)
        try:
            if isinstance(call.outcome, UpstreamError):
                if call.outcome.fate is Fate.SESSION_LOST and call.number == 0:
                    return None
                raise call.outcome
            return self._finished(call, current)
        finally:
            self._forget(call)

    # ---- calls that become tasks

    def _patience_s(self, current: Round) -> float | None:
        """How long the client waits for its result before it is told of a task instead; None where it would not understand.

        One that has asked for progress hears it only while it waits, so it waits for as long as it may.
        """
        if not current.knows_tasks or current.message.method != "tools/call":
            return None
        if current.modern.progress_token is None:
            return self._site.tasks.limits.prompt_s
        return None if current.request.timeout_s is None else current.request.timeout_s * 0.8

    def _host(self, call: ParkableCall, current: Round) -> UpstreamAnswer:
        self._forget(call)
        call.go_on_unheard()
        return current.answered(self._tasks.host(current.request, call).view().modern_created())

    def _follow(self, call: ParkableCall, task_id: str, current: Round) -> UpstreamAnswer:
        """The server has made a task of the call: its result, and what it asks meanwhile, come on one long request.

        Source: MCP 2025-11-25, basic/utilities/tasks, "Input Required Status".
        """
        params = {"taskId": msgspec.Raw(msgspec.json.encode(task_id))}
        modern = attrs.evolve(current.modern, params=params, progress_token=None)
        message = Request(current.message.id, "tasks/result", b"")
        self.sessions.share(call.session)
        following = self._call(call.session, attrs.evolve(current, message=message, modern=modern))
        following.go_on_unheard()
        work = ServerTask(following, self.sessions, task_id)
        return current.answered(self._tasks.host(current.request, work).view().modern_created())

    def _finished(self, call: ParkableCall, current: Round) -> UpstreamAnswer:
        assert isinstance(call.outcome, UpstreamAnswer)
        response = call.outcome.response
        if response is None:
            raise UpstreamError(Fate.BROKEN, "the server ended its stream without a response")
        if response.error:
            return self._refused(call, response.error, current)
        task_id = created_task(response.result) if call.is_augmented else None
        if task_id is not None:
            return self._follow(call, task_id, current)
        try:
            result = modern_result(current.message.method, response.result, call.session.server_info)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(Fate.BROKEN, f"the server's result cannot be read: {error}") from None
        if current.message.method == "tools/list":
            with suppress(msgspec.DecodeError, RecursionError):  # a client that can read it will see what is announced
                self._announced.note(response.result)
        return current.answered(result)

    def _refused(self, call: ParkableCall, error: bytes, current: Round) -> UpstreamAnswer:
        """An error of the server. "URL elicitation required" is a question in the modern era: it did not run, so a retry runs it.

        Source: MCP 2025-11-25, client/elicitation, "URL Elicitation Required Error".
        """
        inputs = url_elicitations(error) if error_code(error) == URL_ELICITATION_REQUIRED else {}
        if inputs and current.message.method in MAY_NEED_INPUT:
            required = capability_problem("elicitation/create", {"mode": "url"}, current.modern.capabilities)
            if required:
                return current.refused(missing_capability(required), 400)
            state = self._sealed("", 1, current)
            return current.answered(input_required(inputs, state, call.session.server_info))
        return current.refused(*modern_error(error))

    # ---- parked calls

    def _park(self, call: ParkableCall, current: Round) -> UpstreamAnswer:
        """Let the call wait for its client, and tell the client what is asked."""
        limits = self._site.parked.limits
        holder, byte_count = holder_of(current.request.hash_keys), jsonrpc.size_bytes(current.message)
        problem = self._site.parked.park(call.name, holder, self._replica.backend, byte_count)
        if problem or call.number >= limits.rounds:
            self._drop(call)
            text = f"the server needs input, but {problem or f'it has asked {limits.rounds} times'}; the call was ended"
            raise UpstreamError(Fate.REFUSED, text, reason="pool_exhausted" if problem else "upstream_failed")
        call.number += 1
        self._parked[call.name] = call
        call.expiry = asyncio.get_running_loop().call_later(limits.park_s, self._drop, call)
        state = self._sealed(call.name, call.number, current)
        return current.answered(input_required(call.asked(), state, call.session.server_info))

    async def _resume(self, current: Round) -> UpstreamAnswer:
        """Go on with the call that the retry belongs to; it is never run again because of what the state says.

        Raises: UpstreamError with forbidden, invalid_params or upstream_failed.
        """
        modern = current.modern
        state = read_state(self._site.seal, modern.request_state or "")
        if state is None:
            raise _refusal("invalid_params", "requestState was not made here, or was altered")
        if state.call and state.cell != self._site.cell_name:
            if self._site.elsewhere is None:
                raise _refusal("upstream_failed", _LOST)
            return await self._site.elsewhere.exchange_at(
                state.cell, replica=self._replica, request=current.request, on_event=current.on_event
            )
        problem = state_problem(
            state,
            backend=self._replica.backend,
            replica=self._replica.address,
            principal=current.owner,
            digest=request_digest(current.message.method, modern.params),
            now_s=time.time(),
        )
        if problem is not None:
            raise _refusal(*problem)
        if not state.call:
            return await self._begin(current)
        call = self._parked.get(state.call)
        if state.incarnation != self._incarnation:
            raise _refusal("upstream_failed", _LOST)
        if call is None or call.is_attended or state.number != call.number:
            raise _refusal("invalid_params", "requestState was used already; its call is not run again")
        answers = {key: bytes(value) for key, value in (modern.input_responses or {}).items()}
        if not all(value.startswith(b"{") for value in answers.values()):
            raise _refusal("invalid_params", "inputResponses must be objects")
        self._site.parked.resume(call.name)
        call.is_attended = True  # a second retry with the same state must not come between
        try:
            await call.answer(answers)
        except BaseException:  # also a client that leaves meanwhile: nobody else could go on with the call
            self._drop(call)
            raise
        answer = await self._attend(call, current)
        assert answer is not None
        return answer

    def _sealed(self, call: str, number: int, current: Round) -> str:
        state = CallState(
            cell=self._site.cell_name,
            incarnation=self._incarnation,
            backend=self._replica.backend,
            replica=self._replica.address,
            principal=current.owner,
            call=call,
            number=number,
            expires_s=time.time() + self._site.parked.limits.park_s,
            digest=request_digest(current.message.method, current.modern.params),
        )
        return sealed_state(self._site.seal, state)

    def _drop(self, call: ParkableCall) -> None:
        self._forget(call)
        call.cancel()

    def _forget(self, call: ParkableCall) -> None:
        self._parked.pop(call.name, None)
        self._site.parked.end(call.name)
        if call.is_augmented:
            call.is_augmented = False
            self.sessions.give_back(call.session)

    # ---- subscriptions

    async def _listen(self, current: Round) -> None:
        """Serve a subscription, until it is cancelled. Calls of the same client that reach another cell, or node, run on a
        session from there, and a server may tell a change to the session alone in which it was made: the others listen as well.
        """
        request = current.request
        listener = Listener(current.message.id, current.modern)
        hub = self._hub(self._key(current))
        others = frozenset() if request.is_relayed else self._site.speakers(self._replica)
        relays = [Relayed(listener) for _ in others]
        relaying = HeldTasks()
        for cell, relayed in zip(others, relays, strict=True):
            relaying.start(self._relay(cell, request, relayed))
        try:
            await hub.serve(listener, current.on_event, relays)
        finally:
            relaying.cancel()

    async def _relay(self, cell: str, request: UpstreamRequest, relayed: Relayed) -> None:
        """Listen in another cell for as long as it is wanted; one that is started again is asked again."""
        assert self._site.elsewhere is not None
        request = msgspec.structs.replace(request, is_relayed=True)
        while True:
            with contextlib.suppress(UpstreamError):
                await self._site.elsewhere.exchange_at(cell, replica=self._replica, request=request, on_event=relayed.hear)
            relayed.is_ready.set()  # it does not serve now: nobody waits for it
            await asyncio.sleep(_RELAY_AGAIN_S)

    # ---- the rest

    async def _discover(self, current: Round) -> UpstreamAnswer:
        session = await self._lend(current)
        self.sessions.give_back(session)
        return current.answered(msgspec.json.encode(discover_result(session.initialized)))


def _read(message: Request) -> ModernRequest:
    try:
        return modern_request(message.params, message.id)
    except Refused as refused:
        raise _refusal(refused.reason, refused.text) from None


def _refusal(reason: str, text: str) -> UpstreamError:
    """Not the server's fault, and nothing to try elsewhere."""
    return UpstreamError(Fate.ENDED, text, reason=reason)
