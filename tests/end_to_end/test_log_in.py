"""Clients that log in by themselves: the official SDK's OAuth flow, a real identity provider, and a gateway between them."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.doubles.identity_provider import IdentityProvider, identity_provider
from tests.doubles.logging_in import Person
from tests.doubles.ports import free_port
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import Form, RunningGateway, start_gateway

_SCENARIO = Path(__file__).parents[1] / "node" / "log_in_scenario.mjs"
DEMO = {"name": "demo", "prefix": "", "builtin": "demo"}
POLICIES = [
    {"effect": "allow", "tools": ["echo", "time"]},
    {"effect": "allow", "tools": ["slow"], "scopes": ["files:write"]},
]


@contextmanager
def guarded(directory: Path, form: Form, provider: IdentityProvider, **tables: Any) -> Iterator[RunningGateway]:
    port = free_port()
    issuer = {
        "issuer": provider.issuer,
        "allow_private": True,
        "leeway": 1.0,
    }  # tokens end at whole seconds, clients count from when they came
    auth = {"scopes": ["files:read"], "issuers": [issuer]}
    gateway = {"port": port, "public_url": f"http://127.0.0.1:{port}"}
    with start_gateway(directory, form, [DEMO], gateway=gateway, auth=auth, **tables) as running:
        yield running


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as running:
        yield running


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(
    request: pytest.FixtureRequest, provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    with guarded(tmp_path_factory.mktemp("log-in"), request.param, provider, policies=POLICIES) as running:
        yield running


def claims(token: str) -> Any:
    """Of a JWT, as anybody reads them."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def addresses(gateway: RunningGateway) -> list[str]:
    return [f"{gateway.url}/mcp", f"{gateway.url}/mcp/servers/demo", f"{gateway.url}/mcp/sse/connect", f"{gateway.url}/sse"]


@pytest.mark.parametrize("which", range(4), ids=["mcp", "server", "sse", "short-sse"])
@pytest.mark.parametrize("mode", MODES)
def test_a_client_logs_in_calls_and_steps_up_by_itself(
    gateway: RunningGateway, provider: IdentityProvider, mode: str, which: int
) -> None:
    url, ada = addresses(gateway)[which], Person(provider, "ada", "inspector")

    async def conversation() -> None:
        # 1. The first answer is 401; it leads to the provider and back.
        async with connected(url, mode, transport=ada.transport(url)) as (client, _):
            assert text_of(await client.call_tool("echo", {"message": "hello"})) == "hello"
            assert [scopes & {"files:read", "files:write"} for scopes in ada.asked] == [{"files:read"}]
            assert ada.tokens is not None
            assert claims(ada.tokens.access_token)["aud"] in (gateway.url, url, f"{gateway.url}/", f"{gateway.url}/mcp")
            # 2. What needs another scope is asked for with it, and once.
            for _ in range(2):
                assert text_of(await client.call_tool("slow", {"seconds": 0.01}))
            assert [scopes & {"files:read", "files:write"} for scopes in ada.asked[1:]] == [{"files:read", "files:write"}]
        # 3. Who has logged in need not again.
        async with connected(url, mode, transport=ada.transport(url)) as (client, _):
            assert text_of(await client.call_tool("slow", {"seconds": 0.01}))
        assert len(ada.asked) == 2

    run(conversation(), timeout_s=60)


@pytest.mark.parametrize("mode", MODES)
def test_a_token_that_expires_is_refreshed_without_a_person(
    gateway: RunningGateway, provider: IdentityProvider, mode: str
) -> None:
    url, ada = f"{gateway.url}/mcp", Person(provider, "ada")

    async def conversation() -> None:
        provider.set_ttl(2)
        try:
            async with connected(url, mode, transport=ada.transport(url)) as (client, _):
                tokens = set()
                for _ in range(4):
                    assert text_of(await client.call_tool("echo", {"message": "hello"})) == "hello"
                    assert ada.tokens is not None
                    tokens.add(ada.tokens.access_token)
                    await asyncio.sleep(1.2)
                assert len(tokens) >= 2
        finally:
            provider.set_ttl(300)
        assert len(ada.asked) == 1

    run(conversation(), timeout_s=60)


@pytest.mark.node_js
@pytest.mark.parametrize("options", [(), ("--modern",)], ids=["legacy", "modern"])
def test_the_typescript_client_logs_in_steps_up_and_refreshes(
    gateway: RunningGateway, provider: IdentityProvider, options: tuple[str, ...]
) -> None:
    """What it shows after its token was spoilt is no token: 401, and it refreshes without asking anybody."""
    node = shutil.which("node")
    assert node, "Node.js 20 or newer is needed for the TypeScript client"
    command = [node, str(_SCENARIO), f"{gateway.url}/mcp", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert (seen["echoed"], seen["again"]) == ("hello", "again")
    assert seen["slept"]
    first, *later = ({*scopes} & {"files:read", "files:write"} for scopes in seen["asked"])
    assert (first, later) == ({"files:read"}, [{"files:read", "files:write"}])
    assert seen["refreshes"] == 1


def test_a_stream_ends_when_the_token_does_and_a_new_token_opens_it_again(
    gateway: RunningGateway, provider: IdentityProvider
) -> None:
    """The session stays: it is the principal's, whatever token that shows."""
    provider.set_ttl(3)
    short = provider.token(f"{gateway.url}/mcp", "files:read")
    provider.set_ttl(300)
    long = provider.token(f"{gateway.url}/mcp", "files:read")
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}
    accept = {"Accept": "application/json, text/event-stream"}
    with httpx2.Client(timeout=10) as http:
        opened = http.post(f"{gateway.url}/mcp", json=body, headers={**accept, "Authorization": f"Bearer {short}"})
        assert opened.status_code == 200, opened.text
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "Accept": "text/event-stream"}
        began_s = time.monotonic()
        with http.stream("GET", f"{gateway.url}/mcp", headers={**session, "Authorization": f"Bearer {short}"}) as stream:
            assert stream.status_code == 200
            for _ in stream.iter_raw():
                pass
        assert time.monotonic() - began_s < 8
        late = http.get(f"{gateway.url}/mcp", headers={**session, "Authorization": f"Bearer {short}"})
        assert late.status_code == 401
        assert 'error="invalid_token"' in late.headers["www-authenticate"]
        with http.stream("GET", f"{gateway.url}/mcp", headers={**session, "Authorization": f"Bearer {long}"}) as stream:
            assert stream.status_code == 200
        other = provider.user_token("bob", f"{gateway.url}/mcp", "files:read")
        stolen = http.get(f"{gateway.url}/mcp", headers={**session, "Authorization": f"Bearer {other}"})
        assert (stolen.status_code, json.loads(stolen.text)["error"]["data"]["reason"]) == (404, "session_not_found")
