"""The snapshot behind the dashboard: one for all who ask, and of others' doings nothing for who may not see them."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from mcp_gateway.config.settings import LOG_LEVELS
from mcp_gateway.transports.downstream.operators.dashboard_page import DashboardEndpoint

STATE = {"node": {"cells": 1}, "parked": 2, "requests": [{"address": "192.0.2.7"}], "clients": [{"client": "ann"}]}


class Reader(SimpleNamespace):
    """Stands for `Incoming`: keeps what it is answered."""

    def __init__(self, *, is_operator: bool) -> None:
        super().__init__(method="GET", path="/metrics/dashboard/state", is_operator=is_operator, answered=asyncio.Event())

    def respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.headers, self.state = status, headers, json.loads(body)
        self.answered.set()


def test_who_may_not_see_clients_reads_the_rest_of_the_same_snapshot() -> None:
    async def body() -> None:
        taken = 0

        async def take_state() -> dict[str, Any]:
            nonlocal taken
            taken += 1
            return STATE

        endpoint = DashboardEndpoint(take_state, lambda incoming: incoming.is_operator)  # type: ignore[attr-defined]
        for is_operator, shown in ((True, STATE), (False, {"node": {"cells": 1}, "parked": 2})):
            reader = Reader(is_operator=is_operator)
            endpoint.handle(reader)  # type: ignore[arg-type]
            await asyncio.wait_for(reader.answered.wait(), 10)
            assert (reader.status, reader.state, reader.headers["Cache-Control"]) == (200, shown, "no-store")
        assert taken == 1

    asyncio.run(body())


def test_the_page_offers_the_levels_of_the_log_that_there_are() -> None:
    page = files("mcp_gateway.transports.downstream.operators") / "dashboard"
    (offered,) = re.findall(r"const LEVELS = \[(.*)\];", (page / "actions.js").read_text())
    assert offered == ", ".join(f"'{level}'" for level in LOG_LEVELS)
