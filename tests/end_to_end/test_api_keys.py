"""Programs with API keys and browsers with tickets, over every transport of a gateway that wants to know its clients."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.conftest import StartGateway
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import RunningGateway, wait_until
from tests.end_to_end.test_phoenix import node_scenario
from tests.node.browser import Browser

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
KEYS = {"ci": "ci-0123456789abcdef", "ops": "ops-0123456789abcdef"}
OPERATE = {"ops": ["mcp-gateway:operate"]}
TRANSPORTS = ("streamable_http", "http_sse", "websocket", "phoenix")


def auth_table() -> dict[str, Any]:
    def entry(name: str, key: str) -> dict[str, Any]:
        return {"name": name, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "scopes": OPERATE.get(name, [])}

    return {"api_keys": [entry(name, key) for name, key in KEYS.items()]}


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, DEMO, auth=auth_table()) as running:
        yield running


def ask(gateway: RunningGateway, path: str, key: str = "", body: bytes | None = None) -> tuple[int, dict[str, str], Any]:
    """(status, headers by their names in lower case, JSON)"""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(gateway.url + path, body, headers), timeout=10) as answer:
            return answer.status, _lower(answer.headers), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _lower(error.headers), json.loads(error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def ticket(gateway: RunningGateway, key: str = KEYS["ci"]) -> str:
    status, _, told = ask(gateway, "/mcp/ticket", key, b"")
    assert status == 200, told
    return str(told["ticket"])


def way_in(gateway: RunningGateway, transport: str) -> tuple[str, Any]:
    """(URL, what the SDK connects by) with the key in the header, or, where the SDK sends none, with a ticket."""
    headers = {"Authorization": f"Bearer {KEYS['ci']}"}
    if transport == "streamable_http":
        url = f"{gateway.url}/mcp"
        return url, streamable_http_client(url, http_client=create_mcp_http_client(headers=headers))
    if transport == "http_sse":
        url = f"{gateway.url}/mcp/sse/connect"
        return url, sse_client(url, headers=headers)
    path = "ws?" if transport == "websocket" else "websocket?vsn=2.0.0&"
    return f"ws{gateway.url[4:]}/mcp/{path}ticket={ticket(gateway)}", None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_key_or_a_ticket_opens_every_transport(gateway: RunningGateway, transport: str, mode: str) -> None:
    """Some times, so that each cell is come to, and messages and tickets come to the other one."""

    async def conversation() -> None:
        for number in range(4):
            url, how = way_in(gateway, transport)
            async with connected(url, mode, transport=how) as (client, _):
                assert text_of(await client.call_tool("echo", {"message": f"hello {number}"})) == f"hello {number}"

    run(conversation(), timeout_s=60)


def test_without_a_key_nothing_is_served_but_what_everybody_may_know(gateway: RunningGateway) -> None:
    for path in ("/mcp", "/mcp/servers/demo", "/mcp/sse/connect", "/mcp/sse/events/client.a", "/mcp/ws", "/mcp/websocket", "/"):
        for key in ("", "wrong"):
            status, headers, told = ask(gateway, path, key)
            assert (status, told["error"]["data"]["reason"]) == (401, "unauthorized")
            assert headers["www-authenticate"].startswith("Bearer ")
    assert ask(gateway, "/health")[2].keys() == {"status"}
    assert ask(gateway, "/health/live")[0] == 200
    assert ask(gateway, "/health/history")[0] == 401
    assert ask(gateway, "/health/history", KEYS["ci"])[0] == 403
    assert ask(gateway, "/health/history", KEYS["ops"])[0] == 200
    assert ask(gateway, "/.well-known/oauth-protected-resource/mcp")[0] == 404, "there is nowhere to log in"


def test_neither_keys_nor_tickets_are_written_to_the_log(gateway: RunningGateway) -> None:
    used = ticket(gateway)
    assert ask(gateway, f"/mcp/sse/events/all?ticket={used}")[0] == 403
    assert ask(gateway, f"/mcp/sse/events/client.a?ticket={used}")[0] == 401
    assert ask(gateway, "/mcp/ws?access_token=secret-in-a-query")[0] == 400
    for secret in (used, *KEYS.values(), "secret-in-a-query"):
        assert secret not in gateway.log


@pytest.mark.node_js
def test_the_npm_client_of_phoenix_comes_in_with_a_ticket(gateway: RunningGateway) -> None:
    """Its channel of everything is for operators."""
    with node_scenario(gateway.url, "--key", KEYS["ops"]) as scenario:
        seen = scenario.next()
    assert seen["joined"] == {"topic": "all"}
    assert (seen["pong"], seen["called"]) == ("pong", "hi")


# ---- a browser


NEW_TICKET = (
    "fetch('/mcp/ticket', {{method: 'POST', headers: {{authorization: 'Bearer {key}'}}}}).then(a => a.json()).then(a => a.ticket)"
)
OPEN = """
window.told = [];
window.source = new EventSource('/mcp/sse/events/client.*?ticket=TICKET');
source.addEventListener('vsm_event', event => told.push(JSON.parse(event.data).event_type));
window.socket = new WebSocket(`ws://${location.host}/mcp/websocket?vsn=2.0.0&ticket=SECOND`);
socket.onopen = () => {
  socket.send(JSON.stringify(['1', '1', 'mcp:client.page', 'phx_join', {}]));
  socket.send(JSON.stringify(['1', '2', 'mcp:client.page', 'event', {event: 'page', data: {}}]));
};
"""


@pytest.mark.node_js
def test_a_page_opens_an_event_source_and_a_socket_with_tickets(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(f"{gateway.url}/health/live")
    first, second = (browser.evaluate(NEW_TICKET.format(key=KEYS["ci"])) for _ in range(2))
    script = OPEN.replace("TICKET", first)
    browser.evaluate(f"(() => {{ {script.partition('window.socket')[0]} }})()")
    wait_until(lambda: browser.evaluate("source.readyState") == 1, 10, "the EventSource is open")
    browser.evaluate(f"(() => {{ window.socket{script.partition('window.socket')[2].replace('SECOND', second)} }})()")
    wait_until(lambda: browser.evaluate("told") == ["client.page"], 10, "the event has come")
    used = f"/mcp/sse/events/client.*?ticket={first}"
    assert browser.evaluate(f"fetch('{used}').then(answer => answer.status)") == 401
    assert browser.evaluate("fetch('/mcp/ticket', {method: 'POST'}).then(a => a.headers.get('www-authenticate'))").startswith(
        "Bearer"
    )
