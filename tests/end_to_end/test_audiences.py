"""A token that is made out to one server is good at that one's addresses, over each transport, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest

from tests.conftest import StartGateway
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks
from tests.end_to_end.every_transport import WAYS, bearer, sse_data
from tests.end_to_end.raw_http import ask, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway

KEY = IssuerKey.make("k")
BACKENDS = [{"name": "one", "builtin": "demo"}, {"name": "two", "builtin": "demo"}]
A_DAY_S = 86_400  # modules are loaded long before their tests run
WHOLE, ONE, TWO = (
    KEY.token({"aud": f"{PUBLIC_URL}/mcp{below}", "exp": int(time.time()) + A_DAY_S})
    for below in ("", "/servers/one", "/servers/two")
)


@pytest.fixture(name="gateway", scope="module", params=["embedded", "two cells"])
def gateway_fixture(
    request: pytest.FixtureRequest, start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    keys: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_bytes(jwks(KEY))
    auth = {"issuers": [{"issuer": ISSUER, "jwks_file": str(keys)}], "operator_scope": ""}
    with start_gateway(request.param, BACKENDS, auth=auth, gateway={"public_url": PUBLIC_URL}) as running:
        yield running


def status(gateway: RunningGateway, path: str, token: str, verb: str = "POST") -> int:
    body = modern(request("tools/list"))[0] if verb == "POST" else b""
    headers = {**(modern(request("tools/list"))[1] if verb == "POST" else {}), **bearer(token)}
    return ask(f"{gateway.url}{path}", body, headers, verb=verb).status


def test_a_token_for_a_server_opens_that_one_and_one_for_the_gateway_each(gateway: RunningGateway) -> None:
    for path, good in (
        ("/mcp", [WHOLE]),
        ("/mcp/servers/one", [WHOLE, ONE]),
        ("/mcp/servers/one/mcp", [WHOLE, ONE]),
        ("/mcp/servers/%6fne", [WHOLE, ONE]),
        ("/mcp/servers/two", [WHOLE, TWO]),
        ("/mcp?backend=one", [WHOLE]),
    ):
        assert {token: status(gateway, path, token) for token in (WHOLE, ONE, TWO)} == {
            token: 200 if token in good else 401 for token in (WHOLE, ONE, TWO)
        }, path


def test_it_opens_nothing_of_the_gateway_as_a_whole(gateway: RunningGateway) -> None:
    for path in ("/metrics", "/health", "/metrics/dashboard", "/", "/mcp/sse/events/client.a", "/mcp/sse/events/all"):
        assert status(gateway, path, ONE, "GET") == 401, path
    said = ask(f"{gateway.url}/mcp/servers/two", b"", bearer(ONE)).headers["www-authenticate"]
    assert 'error="invalid_token"' in said
    assert f'resource_metadata="{PUBLIC_URL}/.well-known/oauth-protected-resource/mcp/servers/two"' in said


@pytest.mark.parametrize("way", [way for way in WAYS if way != "streamable HTTP"])
def test_over_connections_the_server_is_the_one_of_the_handshake(gateway: RunningGateway, way: str) -> None:
    message = modern(tool_call("echo", {"message": "hi"}))[0]

    async def reached(query: str, token: str) -> bool:
        try:
            return "result" in await WAYS[way](gateway.url, message, query=query, key=token)
        except (aiohttp.ClientError, AssertionError, OSError, Exception) as error:
            assert "401" in str(error) or "without endpoint" in str(error), error
            return False

    async def body() -> None:
        assert await reached("backend=one", ONE)
        assert await reached("backend=one", WHOLE)
        assert not await reached("backend=two", ONE)
        assert not await reached("", ONE)

    asyncio.run(body())


def test_a_stream_of_the_whole_takes_no_message_with_a_token_for_one_server(gateway: RunningGateway) -> None:
    """The same person has both: what is posted counts for what it was posted with."""

    async def body() -> None:
        url = f"{gateway.url}/mcp/sse/connect"
        async with aiohttp.ClientSession() as http, http.get(url, headers=bearer(WHOLE)) as stream:
            posts_to = urljoin(url, await sse_data(stream, "endpoint"))
            message = modern(request("tools/list"))[0]
            for token, expected in ((ONE, 404), (WHOLE, 202)):
                async with http.post(posts_to, json=message, headers=bearer(token)) as posted:
                    assert posted.status == expected

    asyncio.run(body())


def test_a_ticket_opens_what_its_token_would(gateway: RunningGateway) -> None:
    def ticket() -> str:
        answer: dict[str, Any] = json.loads(ask(f"{gateway.url}/mcp/ticket", b"", bearer(ONE)).body)
        return str(answer["ticket"])

    for path, expected in (("/mcp/sse/connect?backend=two&", 401), ("/mcp/sse/events/client.a?", 401), ("/sse?", 401)):
        assert ask(f"{gateway.url}{path}ticket={ticket()}", verb="GET").status == expected, path

    async def body() -> None:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{gateway.url}/mcp/sse/connect?backend=one&ticket={ticket()}") as stream:
                assert stream.status == 200

    asyncio.run(body())


def test_a_session_of_the_whole_is_not_gone_on_with_at_one_server(gateway: RunningGateway) -> None:
    session = open_session(f"{gateway.url}/mcp", bearer(WHOLE))
    for token in (WHOLE, ONE):
        answer = ask(f"{gateway.url}/mcp/servers/one", tool_call("echo", {"message": "x"}), {**session, **bearer(token)})
        assert answer.status == 404
