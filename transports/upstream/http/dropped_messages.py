"""What a server says that belongs to none of its own exchanges: counted, told to the log within a budget, and given to nobody."""

from __future__ import annotations

import logging
import time
from typing import Final

from mcp_gateway.transports.ports.upstream_port import Stray
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.log_budget import LogBudget

_logger = logging.getLogger(__name__)
_LINES: Final = 5
_PERIOD_S: Final = 60.0
"""A server may say such things without end, and late ones are no fault: the counter tells how many there were."""


class DroppedMessages:
    """The messages of one replica that were dropped. name: of the replica, for the log."""

    def __init__(self, backend: str, name: str) -> None:
        self._backend = backend
        self._name = name
        self._budget = LogBudget(_LINES, _PERIOD_S)

    def note(self, kind: Stray, why: str) -> None:
        metrics.upstream_messages_dropped_total.labels(self._backend, kind.value).inc()
        left_out = self._budget.take(time.monotonic())
        if left_out is not None:
            before = f" ({left_out} such messages before it were not told)" if left_out else ""
            _logger.info("%s: dropped %s%s", self._name, why, before)
