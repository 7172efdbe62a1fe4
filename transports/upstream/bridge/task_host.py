"""Tasks for servers that have none, or those of the other era: the gateway runs the call, its client comes for it later."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import holder_of, owner_of
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import (
    Elsewhere,
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.tasks import KeptTask, TaskStatus, TaskView, unknown_task
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR, INVALID_PARAMS, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.mcp.tasks import declares_extension, missing_extension
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, addressed_task, sealed_task_id

from .bridge_site import BridgeSite

_LOST: Final = "the task was lost with the process that ran it; it may have run and was NOT run again"
_NOTHING: Final = b'{"resultType":"complete"}'

Attend = Callable[[EventHandler, str], Awaitable[None]]
"""Puts what the work asks to a legacy client, on the stream of its `tasks/result`, until the work is over. Takes its id."""
Respond = Callable[[str, Response], Awaitable[None]]
"""Takes what a legacy client answers to a question that has an id of `question_id`: (key, response). Raises: UpstreamError."""


class TaskWork(Protocol):
    """What a task does."""

    @property
    def outcome(self) -> UpstreamAnswer | UpstreamError | None:
        """How it ended, or None while it has not."""

    def asked(self) -> dict[str, dict[str, Any]]:
        """The open questions as `inputRequests`."""

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        """Hand answers over; what is not asked is left out.

        Raises: UpstreamError.
        """

    def cancel(self) -> None:
        """End it, if it has not ended."""

    async def over(self) -> None:
        """Wait until it has ended."""


class HostedTask:
    """One call that runs here as a task.

    task_id: sealed. attend, respond: how a legacy client is asked, and answers; a modern one does that by `tasks/update`.
    updated_s, is_cancelled: when and how it has ended, of one that was over before this process began.
    """

    def __init__(
        self,
        task_id: str,
        work: TaskWork,
        *,
        created_s: float,
        ttl_ms: int,
        poll_ms: int,
        attend: Attend | None = None,
        respond: Respond | None = None,
        updated_s: float | None = None,
        is_cancelled: bool = False,
    ) -> None:
        self.task_id = task_id
        self.work = work
        self.attend = attend
        self.respond = respond
        self.expiry: asyncio.TimerHandle | None = None
        self._is_cancelled = is_cancelled
        self._ttl_ms, self._poll_ms = ttl_ms, poll_ms
        self._created_s = created_s
        self._updated_s = created_s if updated_s is None else updated_s
        self._told = TaskStatus.WORKING if updated_s is None else self._state()[0]

    def view(self) -> TaskView:
        """The task now; its last change is when somebody first looked after it."""
        status, result, error = self._state()
        if status is not self._told:
            self._told, self._updated_s = status, time.time()
        return TaskView(
            task_id=self.task_id,
            status=status,
            created_s=self._created_s,
            updated_s=self._updated_s,
            ttl_ms=self._ttl_ms,
            poll_ms=self._poll_ms,
            message=_message(error),
            asked=self.work.asked() if status is TaskStatus.INPUT_REQUIRED else {},
            result=result,
            error=error,
        )

    def cancel(self) -> None:
        """A task that is over stays as it is."""
        if self.work.outcome is None:
            self._is_cancelled = True
            self.work.cancel()

    def _state(self) -> tuple[TaskStatus, bytes, bytes]:
        """(status, result, error)."""
        outcome = self.work.outcome
        if self._is_cancelled:
            return TaskStatus.CANCELLED, b"", b""
        if outcome is None:
            return (TaskStatus.INPUT_REQUIRED if self.work.asked() else TaskStatus.WORKING), b"", b""
        if isinstance(outcome, UpstreamError):
            return TaskStatus.FAILED, b"", outcome.failure.error or json_error(INTERNAL_ERROR, outcome.failure.text)
        if outcome.response is None:
            return TaskStatus.FAILED, b"", json_error(INTERNAL_ERROR, "the server ended its stream without a response")
        if outcome.response.error:
            return TaskStatus.FAILED, b"", outcome.response.error
        return TaskStatus.COMPLETED, outcome.response.result, b""


class TaskHost:
    """The tasks of one replica that run in this cell. Their ids tell every cell whom to ask.

    A result outlives the process, where there is a disk; a call does not. Whoever asks for one that died so reads that it has
    failed, and why.

    A known gap: a task that a server of the other era runs itself goes on there without us; a record of the server's own id could
    find it again.
    """

    def __init__(self, site: BridgeSite, replica: ReplicaId) -> None:
        self._site = site
        self._replica = replica
        self._incarnation = secrets.token_urlsafe(6)
        self._tasks: dict[str, HostedTask] = {}
        self._watching = HeldTasks()

    def host(
        self,
        request: UpstreamRequest,
        work: TaskWork,
        *,
        wanted_ttl_ms: int | None = None,
        attend: Attend | None = None,
        respond: Respond | None = None,
    ) -> HostedTask:
        """Keep the work as a task from now on.

        Raises: UpstreamError with pool_exhausted, the work ended, where a limit forbids it.
        """
        limits = self._site.tasks.limits
        name = secrets.token_urlsafe(12)
        problem = self._site.tasks.open(name, holder_of(request.hash_keys), self._replica.backend)
        if problem:
            work.cancel()
            raise UpstreamError(Fate.ENDED, f"{problem}; the call was ended", reason="pool_exhausted")
        ttl_ms = int(limits.ttl_s * 1000)
        if wanted_ttl_ms is not None:
            ttl_ms = max(0, min(wanted_ttl_ms, ttl_ms))
        created_ms = int(time.time() * 1000)
        owner, holder = owner_of(request.hash_keys), holder_of(request.hash_keys)
        sealed = TaskId(*self._replica, owner, name, self._site.cell_name, self._incarnation, created_ms)
        task = self._tasks[name] = self._hosted(sealed, work, ttl_ms, attend=attend, respond=respond)
        self._site.hosted[name] = drop = functools.partial(self._drop, name)
        task.expiry = asyncio.get_running_loop().call_later(ttl_ms / 1000, drop)
        kept = KeptTask(created_ms=created_ms, ttl_ms=ttl_ms)
        if self._site.records is not None:
            self._site.records.begin(name, holder, kept)
        self._watching.start(self._watch(name, holder, task, kept))
        return task

    def addressed(self, request: UpstreamRequest) -> TaskId | None:
        """The task that a request is about, where it is one that some cell of ours runs, or ran."""
        message = request.message
        if not isinstance(message, Request) or message.method not in TASK_METHODS:
            return None
        task = addressed_task(self._site.seal, message.params)
        return task if task is not None and task.cell else None

    async def exchange(self, request: UpstreamRequest, sealed: TaskId, on_event: EventHandler) -> UpstreamAnswer:
        """Answer a request about a task, here or in the cell that runs it.

        Raises: UpstreamError.
        """
        message = request.message
        assert isinstance(message, Request)
        is_modern_client = request.session is None
        if is_modern_client and not declares_extension(message.params):
            return UpstreamAnswer(400, Response(message.id, b"", missing_extension()))
        task = None
        if self._is_of_client(request, sealed):
            if (elsewhere := self._elsewhere(sealed)) is not None:
                return await elsewhere.exchange_at(sealed.cell, replica=self._replica, request=request, on_event=on_event)
            task = self._tasks.get(sealed.task) or self._recalled(sealed)
        if task is None:
            status = 400 if is_modern_client else 200
            return UpstreamAnswer(status, Response(message.id, b"", unknown_task(sealed.task)))
        if is_modern_client:
            return await _serve_modern(message, task)
        return await _serve_legacy(message, task, on_event, request.timeout_s)

    async def take_answer(self, request: UpstreamRequest, sealed: TaskId, key: str) -> UpstreamAnswer:
        """A legacy client's response to what one of its tasks asks, here or in the cell that runs it.

        Raises: UpstreamError.
        """
        assert isinstance(request.message, Response)
        if self._is_of_client(request, sealed):
            if (elsewhere := self._elsewhere(sealed)) is not None:
                return await elsewhere.exchange_at(sealed.cell, replica=self._replica, request=request, on_event=ignore_events)
            task = self._tasks.get(sealed.task)
            if task is not None and task.respond is not None:
                await task.respond(key, request.message)
        return UpstreamAnswer(202, None)

    def _is_of_client(self, request: UpstreamRequest, sealed: TaskId) -> bool:
        return (*self._replica, owner_of(request.hash_keys)) == (sealed.backend, sealed.replica, sealed.principal)

    def _elsewhere(self, sealed: TaskId) -> Elsewhere | None:
        """How to reach the cell that runs it; None where that is this one, or is no more."""
        is_there = sealed.cell != self._site.cell_name and sealed.cell in self._site.others()
        return self._site.elsewhere if is_there else None

    def close(self) -> None:
        for name in list(self._tasks):
            self._end(name)
        self._watching.cancel()

    def _hosted(self, sealed: TaskId, work: TaskWork, ttl_ms: int, **how: Any) -> HostedTask:
        return HostedTask(
            sealed_task_id(self._site.seal, sealed),
            work,
            created_s=sealed.created_ms / 1000,
            ttl_ms=ttl_ms,
            poll_ms=int(self._site.tasks.limits.poll_s * 1000),
            **how,
        )

    def _recalled(self, sealed: TaskId) -> HostedTask | None:
        """A task whose process is no more: as it had ended, or as one that died with it; None where it is only too old."""
        if (sealed.cell, sealed.incarnation) == (self._site.cell_name, self._incarnation):
            return None
        kept = None if self._site.records is None else self._site.records.find(sealed.task)
        ttl_ms = int(self._site.tasks.limits.ttl_s * 1000) if kept is None else kept.ttl_ms
        if sealed.created_ms + ttl_ms < time.time() * 1000:
            return None
        if kept is None or not kept.status.is_terminal:
            return self._hosted(sealed, _Over(UpstreamError(Fate.CELL_LOST, _LOST)), ttl_ms)
        outcome = UpstreamAnswer(200, Response(b"0", kept.result, kept.error))
        is_cancelled = kept.status is TaskStatus.CANCELLED
        return self._hosted(sealed, _Over(outcome), ttl_ms, updated_s=kept.ended_ms / 1000, is_cancelled=is_cancelled)

    async def _watch(self, name: str, holder: str, task: HostedTask, kept: KeptTask) -> None:
        """When the work is over, record how, and let go of what has to leave for its result."""
        await task.work.over()
        view = task.view()
        if self._site.records is not None:
            ended_ms = round(view.updated_s * 1_000_000) // 1000  # as it is shown
            kept = attrs.evolve(kept, ended_ms=ended_ms, status=view.status, result=view.result, error=view.error)
            self._site.records.finish(name, holder, kept)
        for leaving in self._site.tasks.finish(name, len(view.result) + len(view.error)):
            self._site.hosted[leaving]()

    def _drop(self, name: str) -> None:
        """The task is not kept any longer, neither here nor on disk."""
        self._end(name)
        if self._site.records is not None:
            self._site.records.forget(name)

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name)
        del self._site.hosted[name]
        self._site.tasks.forget(name)
        if task.expiry is not None:
            task.expiry.cancel()
        task.cancel()


class _Over:
    """The work of a task whose process is no more."""

    def __init__(self, outcome: UpstreamAnswer | UpstreamError) -> None:
        self.outcome = outcome

    def asked(self) -> dict[str, dict[str, Any]]:
        return {}

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        """Nobody is there to take it."""

    def cancel(self) -> None:
        """It has ended."""

    async def over(self) -> None:
        """It is."""


async def _serve_modern(message: Request, task: HostedTask) -> UpstreamAnswer:
    """Source: SEP-2663, "Task Polling", "Task Update Requests", "Task Cancellation"."""
    if message.method == "tasks/get":
        shown = msgspec.json.encode({"resultType": "complete", **task.view().modern_detailed()})
        return UpstreamAnswer(200, Response(message.id, shown, b""))
    if message.method == "tasks/cancel":
        task.cancel()
    elif message.method == "tasks/update":
        inputs = _inputs(message.params)
        if inputs is None:
            error = json_error(INVALID_PARAMS, "inputResponses must be an object of objects")
            return UpstreamAnswer(400, Response(message.id, b"", error))
        await task.work.answer(inputs)
    return UpstreamAnswer(200, Response(message.id, _NOTHING, b""))


async def _serve_legacy(message: Request, task: HostedTask, on_event: EventHandler, timeout_s: float | None) -> UpstreamAnswer:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Protocol Messages"."""
    if message.method == "tasks/result":
        try:
            async with asyncio.timeout(timeout_s):
                if task.attend is not None:
                    await task.attend(on_event, task.task_id)
                await task.work.over()
        except TimeoutError:
            raise UpstreamError(Fate.ENDED, "the task has not ended in time; it goes on", reason="upstream_timeout") from None
        return UpstreamAnswer(200, task.view().legacy_outcome(message.id))
    if message.method == "tasks/cancel":
        status = task.view().status
        if status.is_terminal:
            error = json_error(INVALID_PARAMS, f"Cannot cancel task: already in terminal status {status.value!r}")
            return UpstreamAnswer(200, Response(message.id, b"", error))
        task.cancel()
    return UpstreamAnswer(200, Response(message.id, msgspec.json.encode(task.view().legacy()), b""))


def task_wish(params: bytes) -> tuple[int | None, bytes]:
    """(the time to live that a legacy client wants for its task in ms, if any; the params of the call itself).

    Raises: UpstreamError with invalid_params.
    """
    values = jsonrpc.members(params)
    try:
        wanted = jsonrpc.members(bytes(values.pop("task"))).get("ttl", Raw(b"null"))
        ttl_ms = msgspec.json.decode(wanted, type=int | float | None)
    except msgspec.DecodeError as error:
        raise UpstreamError(Fate.ENDED, f"the task cannot be read: {error}", reason="invalid_params") from None
    return None if ttl_ms is None else int(ttl_ms), msgspec.json.encode(values)


def _inputs(params: bytes) -> dict[str, bytes] | None:
    try:
        inputs = jsonrpc.members(bytes(jsonrpc.members(params)["inputResponses"]))
    except (KeyError, msgspec.DecodeError):
        return None
    return {key: bytes(value) for key, value in inputs.items()} if all(map(_is_object, inputs.values())) else None


def _is_object(value: Raw) -> bool:
    return bytes(value).startswith(b"{")


def _message(error: bytes) -> str:
    """What an error says to people, if anything."""
    try:
        return str(msgspec.json.decode(jsonrpc.members(error).get("message", Raw(b'""'))))
    except (msgspec.DecodeError, RecursionError):
        return ""
