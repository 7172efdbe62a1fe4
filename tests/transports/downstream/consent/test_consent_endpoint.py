"""The pages at which users consent, as the server hands requests to them; the whole way is tested end to end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_gateway.transports.downstream.consent.consent_endpoint import ConsentEndpoint
from mcp_gateway.transports.ports.consents import ConsentFailed


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConsentFailed("too old"), 400), (ConsentFailed("no disk", is_ours=True), 503), (RuntimeError("a defect"), 500)],
)
def test_whatever_fails_the_person_is_answered(error: Exception, status: int) -> None:
    def fail(_: str) -> Any:
        raise error

    async def run() -> None:
        consents: Any = SimpleNamespace(asked_by=fail)
        endpoint = ConsentEndpoint(consents, "https://mcp.example")
        incoming: Any = SimpleNamespace(
            method="GET",
            path="/mcp/oauth/connect",
            query="link=x",
            headers={},
            principal=None,
            respond=lambda shown, body, headers, content_type: answers.append((shown, body)),
        )
        endpoint.handle(incoming)
        await endpoint._tasks.wait(5)

    answers: list[tuple[int, bytes]] = []
    asyncio.run(run())
    assert [shown for shown, _ in answers] == [status]
    assert b"a defect" not in answers[0][1]
