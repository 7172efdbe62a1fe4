"""What a client says of itself is no key of limits, over every transport."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.every_transport import WAYS
from tests.end_to_end.python_client import run
from tests.end_to_end.raw_http import MODERN, ask, ask_modern, open_session, request
from tests.end_to_end.running_gateway import Form

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
BURST = 3
ONE_HOUR_EACH = {"requests_per_second": 0.001, "burst": BURST}


@pytest.mark.parametrize("way", WAYS)
def test_who_says_each_time_to_be_somebody_else_is_limited_all_the_same(way: str, start_gateway: StartGateway) -> None:
    with start_gateway("embedded", DEMO, limits=ONE_HOUR_EACH) as gateway:
        reasons = [reason(run(WAYS[way](gateway.url, listing(), f"user_id=u{number}"))) for number in range(BURST + 2)]
        assert reasons == [""] * BURST + ["rate_limited"] * 2


def listing() -> dict[str, Any]:
    """What is served without a session over every transport but Streamable HTTP, where the stateless revision asks for it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return request("tools/list", {"_meta": meta})


def reason(answer: dict[str, Any]) -> str:
    return answer["error"]["data"]["reason"] if "error" in answer else ""


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_nobody_uses_up_the_limit_of_whom_it_says_it_is(form: Form, start_gateway: StartGateway) -> None:
    table = {"trusted_proxies": ["127.0.0.1"]}
    with start_gateway(form, DEMO, limits=ONE_HOUR_EACH, gateway=table) as gateway:
        statuses: dict[str, list[int]] = {}
        for address, count in (("10.0.0.1", 20), ("10.0.0.2", 1)):
            headers = {"X-Forwarded-For": address}
            statuses[address] = [claim(f"{gateway.url}/mcp?user_id=ada", headers) for _ in range(count)]
        assert 429 in statuses["10.0.0.1"]
        assert statuses["10.0.0.2"] == [200]


def claim(url: str, headers: dict[str, str]) -> int:
    """The status of a stateless request."""
    body = listing()
    return ask(url, body, {**headers, "MCP-Protocol-Version": MODERN, "Mcp-Method": body["method"]}).status


def test_sessions_are_no_way_around_the_limit(start_gateway: StartGateway) -> None:
    """Twenty sessions that were opened from many addresses are used from one."""
    table = {"trusted_proxies": ["127.0.0.1"]}
    limits = {"requests_per_second": 0.001, "burst": 10}
    with start_gateway("embedded", DEMO, limits=limits, gateway=table) as gateway:
        sessions = [open_session(gateway.endpoint(), {"X-Forwarded-For": f"10.0.1.{number}"}) for number in range(20)]
        statuses = [
            ask(gateway.endpoint(), request("ping"), {**session, "X-Forwarded-For": "10.0.0.1"}).status
            for session in sessions
            for _ in range(5)
        ]
        assert statuses == [200] * 40 + [429] * 60
        assert ask_modern(gateway.endpoint(), request("tools/list")).status == 200
