"""Asks the guard of a backend, within a deadline, and knows what follows where it does not answer.

What a guard is asked, and what it answers, is one JSON object each:

    {"phase": "before", "backend": "files", "tool": "read", "user": "https://id.example ann", "arguments": {...}}
    {"phase": "after", ..., "result": {...}}
    {"action": "allow"}   {"action": "refuse", "reason": "..."}   {"action": "replace", "arguments": {...}} or "result"
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch
from mcp_gateway.transports.ports.guard_port import Guarded, GuardRefused, Phase

_MOST_ANSWER_BYTES: Final = 8_388_608
_USUAL_DEADLINE_S: Final = 2.0
_LONGEST_REASON: Final = 500
_VALUE: Final = {Phase.BEFORE: "arguments", Phase.AFTER: "result"}
_logger = logging.getLogger(__name__)

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Puts a question to the guard: what it answers, as a Python value. May raise anything."""


class Guardrail:
    """Implements `guard_port.Guard`. settings: `guard` of `[backends.tools]`. ask: how it is asked."""

    def __init__(self, settings: Mapping[str, Any], ask: Ask) -> None:
        self._ask = ask
        self._deadline_s = float(settings.get("deadline", _USUAL_DEADLINE_S))
        self._lets_pass = settings.get("fail", "closed") == "open"
        self._phases = frozenset(settings.get("phases", ("before", "after")))
        self._has_told = False

    async def judge(self, guarded: Guarded) -> bytes:
        if guarded.phase.value not in self._phases:
            return guarded.value
        member = _VALUE[guarded.phase]
        try:
            question = {
                "phase": guarded.phase.value,
                "backend": guarded.backend,
                "tool": guarded.tool,
                "user": guarded.user,
                member: msgspec.json.decode(guarded.value),
            }
            async with asyncio.timeout(self._deadline_s):
                answer = await self._ask(question)
            return _read(answer, member, guarded.value)
        except GuardRefused:
            raise
        except Exception as error:  # whatever an operator's program does, or does not
            return self._without_answer(guarded, error)

    def _without_answer(self, guarded: Guarded, error: Exception) -> bytes:
        if not self._has_told:
            self._has_told = True
            follows = "passes all the same" if self._lets_pass else "is refused"
            _logger.error("backend %s: its guard gives no answer, so that every call %s: %r", guarded.backend, follows, error)
        if self._lets_pass:
            return guarded.value
        raise GuardRefused("the guard of this tool gives no answer") from None


def guard_of(tools: Mapping[str, Any]) -> Guardrail | None:
    """The guard that the settings of a backend's tools name."""
    settings = tools.get("guard")
    if settings is None:
        return None
    if "callable" in settings:
        return Guardrail(settings, _in_process(settings["callable"]))
    return Guardrail(settings, _over_http(settings["url"], float(settings.get("deadline", _USUAL_DEADLINE_S))))


def _read(answer: Any, member: str, value: bytes) -> bytes:
    """Raises: GuardRefused; ValueError where it is no answer."""
    action = answer.get("action") if isinstance(answer, dict) else None
    if action == "allow":
        return value
    if action == "refuse":
        reason = answer.get("reason")
        raise GuardRefused(reason[:_LONGEST_REASON] if isinstance(reason, str) and reason else "the guard refuses it")
    if action == "replace" and isinstance(answer.get(member), dict):
        return msgspec.json.encode(answer[member])
    raise ValueError(f"an answer is an action of allow, refuse, or replace with {member!r}")


def _in_process(name: str) -> Ask:
    """module:function, plain or a coroutine; a plain one runs on a thread, since it may take its time. Imported when it is asked
    first: one that cannot be is a guard that gives no answer.
    """
    module, _, attribute = name.partition(":")

    async def ask(question: dict[str, Any]) -> Any:
        function = getattr(importlib.import_module(module), attribute)
        if inspect.iscoroutinefunction(function):
            return await function(question)
        return await asyncio.to_thread(function, question)

    return ask


def _over_http(url: str, deadline_s: float) -> Ask:
    rules = FetchRules(allow_private=True, max_bytes=_MOST_ANSWER_BYTES, timeout_s=deadline_s)

    async def ask(question: dict[str, Any]) -> Any:
        fetched = await fetch(url, rules=rules, method="POST", json=question)
        if fetched.status != 200:
            raise FetchFailed(f"status {fetched.status}")
        return msgspec.json.decode(fetched.body)

    return ask
