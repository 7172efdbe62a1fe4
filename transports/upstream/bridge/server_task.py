"""A task that a modern server runs itself, followed to its end for a client that does not poll it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from msgspec import Raw

from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.eras.questions import (
    MOST_OPEN_QUESTIONS,
    MOST_QUESTIONS,
    input_response,
    read_input_requests,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response

from .task_work import Ask

_FAREWELL_S: Final = 5.0
"""Longest wait until a server has taken that its task was cancelled."""

AskAbout = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Asks the server, (method, params); gives its result. Raises: UpstreamError, also where it answers with an error."""


async def followed(created: Mapping[str, Any], ask: Ask, ask_about: AskAbout) -> dict[str, Any]:
    """Poll the task and answer what it asks, until it is over; gives it as it is then. Cancelling this cancels the task.

    created: the server's `CreateTaskResult`. Source: SEP-2663, "Task Polling" and "Task Update Requests".

    Raises: UpstreamError.
    """
    task: Mapping[str, Any] = created
    task_id = {"taskId": created.get("taskId")}
    answering: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            poll_ms = task.get("pollIntervalMs")
            await asyncio.sleep(min(max(poll_ms if isinstance(poll_ms, int) else 1000, 50), 10_000) / 1000)
            task = await ask_about("tasks/get", task_id)
            if task.get("status") in ("completed", "failed", "cancelled"):
                return task
            for answered in [each for each in answering.values() if each.done()]:
                answered.result()  # an answer that the server has refused ends the call
            for key, (method, question) in read_input_requests(task).items():
                open_count = sum(not each.done() for each in answering.values())
                if key not in answering and open_count < MOST_OPEN_QUESTIONS and len(answering) < MOST_QUESTIONS:
                    answer = _answer(task_id, key, method, ask(method, question), ask_about)
                    answering[key] = asyncio.get_running_loop().create_task(answer)
    except asyncio.CancelledError:
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await ask_about("tasks/cancel", task_id)
        raise
    finally:
        for each in answering.values():
            each.cancel()


async def _answer(task_id: Mapping[str, Any], key: str, method: str, asked: Awaitable[Response], ask_about: AskAbout) -> None:
    told = input_response(method, await asked)
    if told is not None:
        await ask_about("tasks/update", {**task_id, "inputResponses": {key: Raw(told)}})
    else:  # there is no form in which the server could be told
        await ask_about("tasks/cancel", task_id)
