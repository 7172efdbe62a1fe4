"""Notes what policies have decided for the clients of a cell, and what operators have done there: a line each in the node's audit
trail, beside the loop.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from mcp_gateway.actors.storage.audit_file import AuditFile
from mcp_gateway.transports.policy.policies import Action, Decision
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.trace_context import trace_id_of
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.log_budget import LogBudget

_logger = logging.getLogger(__name__)

_TOGETHER_S: Final = 0.05
"""Entries of that time are written at once. A cell that is killed loses the last of them."""
_AGAIN_S: Final = 2.0
MOST_WAITING: Final = 20_000
"""While the disk takes nothing; what is noted beyond is lost, and an entry says how much."""
NOBODIES_A_MINUTE: Final = 1
"""Refused log-ins of which nobody knows whose they are: some 50 MB in 90 days, however many there are."""
KNOWN_A_MINUTE: Final = 60
"""Those of whom a good token or a certificate says who it is."""
_MOST_AT_ONCE: Final = 2_000
_LONGEST_WORD: Final = 1_000
_USER: Final = re.compile(r"//[^/@]*@")


class AuditTrail:
    """Costs a request the making of a small tuple. Used from the loop; the file is written by a thread of its own."""

    def __init__(self, file: AuditFile, cell_name: str) -> None:
        self._file = file
        self._cell_name = cell_name
        self._waiting: deque[dict[str, Any]] = deque()
        self._nobodies = LogBudget(NOBODIES_A_MINUTE, 60.0)
        self._known = LogBudget(KNOWN_A_MINUTE, 60.0)
        self._lost_count = 0
        self._left_out_lines = LogBudget()
        self._is_due = False
        self._has_failed = False
        self._is_closed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._writing: asyncio.Task[None] | None = None

    def note(self, principal: Principal | None, action: Action, decision: Decision, exchange: Exchange | None) -> None:
        """exchange: that the decision is about; None for one about a topic."""
        entry = {
            "method": action.method[:_LONGEST_WORD],
            "name": _shown_name(action),
            "backend": action.backend,
            "outcome": _outcome(decision),
            "rule": decision.rule_name,
        }
        if exchange is not None:
            entry["request_id"] = f"{self._cell_name}#{exchange.exchange_id}"
            entry["transport"] = exchange.transport
            entry["address"] = exchange.hash_keys.get("ip", "")
            if (traceparent := exchange.headers.get("traceparent")) is not None:
                entry["trace_id"] = trace_id_of(traceparent) or ""
        self._add(principal, entry)

    def note_log_in(self, principal: Principal | None, shown: str, address: str, path: str, refused: Refused) -> None:
        """Somebody was not let in; as `gate.NoteLogIn` has it. Anybody can try, so few are noted, and how many were not."""
        budget = self._nobodies if principal is None else self._known
        left_out = budget.take(time.monotonic())
        if left_out is None:
            return
        entry: dict[str, Any] = {
            "method": "log in",
            "name": path[:_LONGEST_WORD],
            "outcome": refused.reason,
            "rule": refused.text[:_LONGEST_WORD],
            "shown": shown,
            "address": address,
        }
        self._add(principal, entry | ({"left_out": left_out} if left_out else {}))

    def note_action(self, principal: Principal | None, command: str, about: str, outcome: str, text: str, address: str) -> None:
        """An operator has had something done, or tried to. outcome: "done", "failed", or the reason of a refusal."""
        entry = {
            "method": f"operate/{command}",
            "name": _USER.sub("//…@", about[:_LONGEST_WORD]),
            "outcome": outcome,
            "rule": text[:_LONGEST_WORD],
            "address": address,
        }
        self._add(principal, entry)

    def _add(self, principal: Principal | None, entry: dict[str, Any]) -> None:
        if len(self._waiting) >= MOST_WAITING or self._is_closed:
            self._lose(1)
            return
        who = {
            "time_ms": int(time.time() * 1000),
            "cell": self._cell_name,
            "issuer": "" if principal is None else principal.issuer[:_LONGEST_WORD],
            "subject": "" if principal is None else principal.subject[:_LONGEST_WORD],
            "client": "" if principal is None else principal.client[:_LONGEST_WORD],
        }
        self._waiting.append(who | entry)
        if not self._is_due:
            self._write_in(_TOGETHER_S)

    def _lose(self, count: int) -> None:
        self._lost_count += count
        metrics.audit_entries_total.labels("lost").inc(count)

    def _write_in(self, delay_s: float) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_later(delay_s, self._begin_to_write)

    def _begin_to_write(self) -> None:
        if not self._is_closed:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
        if self._lost_count:
            lost = {"time_ms": int(time.time() * 1000), "cell": self._cell_name, "outcome": "lost", "count": self._lost_count}
            entries.append(lost)
        lost_count, self._lost_count = self._lost_count, 0
        try:
            left_out = await asyncio.get_running_loop().run_in_executor(self._writer, self._file.append, entries, time.time())
        except Exception as error:
            self._lost_count += lost_count
            noted = entries[:-1] if lost_count else entries
            if isinstance(error, OSError):
                self._waiting.extendleft(reversed(noted))
                if not self._has_failed:
                    _logger.error("the audit trail cannot be written, its entries wait: %s", error.strerror or error)
            else:  # a defect of ours: what it fails at would fail again, and keep out all that comes after it
                self._lose(len(noted))
                if not self._has_failed:
                    _logger.exception("the audit trail cannot be written, its entries are lost")
            self._has_failed = True
            self._write_in(_AGAIN_S)
            return
        metrics.audit_entries_total.labels("written").inc(len(entries) - left_out)
        if left_out:
            self._lose(left_out)
            if self._left_out_lines.take(time.monotonic()) is not None:
                _logger.error("the audit trail lacks entries that are no JSON; it says how many")
        if self._has_failed:
            _logger.info("the audit trail is written again")
        self._has_failed = self._is_due = False
        if self._waiting or self._lost_count:
            self._write_in(0.0)

    async def close(self) -> None:
        """Write what waits, once."""
        self._is_closed = True
        if self._writing is not None:
            await self._writing
        while (self._waiting or self._lost_count) and not self._has_failed:
            await self._write()
        self._writer.shutdown(wait=False)


def _outcome(decision: Decision) -> str:
    if decision.is_allowed:
        return "allowed"
    return "insufficient_scope" if decision.scopes else "denied"


def _shown_name(action: Action) -> str:
    """Never what a URI carries beside its path: users, passwords, queries."""
    name = action.name[:_LONGEST_WORD]
    if action.kind not in ("resource", "template"):
        return name
    return _USER.sub("//…@", name.partition("?")[0].partition("#")[0])
