"""What each call of a backend's tools, and what it gives, has to pass: a guard, the tool's schemas, a size."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.guard_port import Guard, Guarded, GuardRefused, Phase
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.curation.cut_results import cut_result, is_final
from mcp_gateway.transports.protocol.curation.tool_checks import ToolChecks
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.telemetry import metrics

_logger = logging.getLogger(__name__)
_LATER: Final = ("tasks/result", "tasks/get")
"""Methods by which the result of a call may come later."""


class ToolRules:
    """guard: None where there is none. most_bytes: of a result; 0 for any."""

    def __init__(self, backend: str, checks: ToolChecks | None, guard: Guard | None, most_bytes: int) -> None:
        self._backend = backend
        self.checks = checks
        self._guard = guard
        self._most_bytes = most_bytes

    @classmethod
    def of(cls, backend: str, tools: Mapping[str, Any], guard: Guard | None) -> ToolRules | None:
        """tools: as `config.tool_settings` has them. None where everything may pass."""
        checks = ToolChecks(frozenset(tools["check"])) if "check" in tools else None
        most_bytes = tools.get("max_result_bytes", 0)
        return None if checks is None and guard is None and not most_bytes else cls(backend, checks, guard, most_bytes)

    def has_to_look_up(self, tool: str) -> bool:
        return self.checks is not None and not self.checks.knows(tool)

    def learn(self, result: bytes) -> None:
        """A page of the server's own list. Raises: msgspec.DecodeError where it is none."""
        if self.checks is not None:
            self.checks.learn(result)

    async def before(self, tool: str, params: bytes, user: str) -> bytes:
        """The params of a call as the server gets them.

        Raises: UpstreamError; msgspec.DecodeError where there are no arguments in them.
        """
        if self._guard is not None:
            values = members(params)
            given = bytes(values.get("arguments", Raw(b"{}")))
            judged = await self._judged(self._guard, Phase.BEFORE, tool, user, given)
            if judged is not given:
                params = msgspec.json.encode({**values, "arguments": Raw(judged)})
        problem = None if self.checks is None else self.checks.arguments_problem(tool, params)
        self._tell_unusable()
        if problem is not None:
            self._refuse("arguments", "invalid_params", f"arguments of tool {tool!r}: {problem}")
        return params

    async def after(self, tool: str, result: bytes, user: str) -> bytes:
        """What a call has given, as the client gets it. Raises: UpstreamError; msgspec.DecodeError where it is no result."""
        if self._guard is not None and is_final(members(result)):
            result = await self._judged(self._guard, Phase.AFTER, tool, user, result)
        problem = None if self.checks is None or not tool else self.checks.result_problem(tool, result)
        self._tell_unusable()
        if problem is not None:
            self._refuse(
                "results", "upstream_failed", f"the result of tool {tool!r} is not what its outputSchema says: {problem}"
            )
        cut = cut_result(result, self._most_bytes) if self._most_bytes else result
        if cut is not result:
            metrics.tool_refusals_total.labels(self._backend, "size").inc()
        return cut

    async def later(self, method: str, result: bytes, user: str) -> bytes:
        """The same of what a task has given. Raises: as `after`."""
        if method == "tasks/result":
            return await self.after("", result, user)
        values = members(result)
        if not bytes(values.get("result", b"")).startswith(b"{"):
            return result
        values["result"] = Raw(await self.after("", bytes(values["result"]), user))
        return msgspec.json.encode(values)

    async def _judged(self, guard: Guard, phase: Phase, tool: str, user: str, value: bytes) -> bytes:
        try:
            return await guard.judge(Guarded(phase=phase, backend=self._backend, tool=tool, user=user, value=value))
        except GuardRefused as refused:
            self._refuse(f"guard_{phase.value}", "forbidden", str(refused))
            raise

    def _refuse(self, rule: str, reason: str, text: str) -> None:
        """Whatever the server would have said: of how it is that says nothing."""
        metrics.tool_refusals_total.labels(self._backend, rule).inc()
        raise UpstreamError(Fate.ENDED, text, reason=reason) from None

    def _tell_unusable(self) -> None:
        if self.checks is not None:
            for tool, why in self.checks.take_unusable().items():
                _logger.warning("backend %s: the schema of tool %r checks nothing: %s", self._backend, tool[:100], why)


def gives_later(method: str) -> bool:
    return method in _LATER
