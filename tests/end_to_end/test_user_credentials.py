"""Users consent once at a server that wants OAuth, and are that server's users from then on; over a whole cell."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.config.identity_settings import Revocations
from tests.doubles.oauth_server import (
    Browser,
    LegacyClient,
    ModernClient,
    OauthServer,
    a_browser,
    consent_url,
    oauth_server,
    text_of,
)
from tests.doubles.patience import patience
from tests.doubles.ports import free_port
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell
from tests.node.browser import Browser as Chromium

USERS = ("ann-key", "bob-key")
AUTH = {"api_keys": [{"name": key, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"} for key in USERS]}


class Scene:
    """A server that wants OAuth, a gateway before it, and clients of two users."""

    def __init__(self, server: OauthServer, cell: RunningCell, stack: AsyncExitStack) -> None:
        self.server = server
        self.cell = cell
        self._stack = stack

    async def client(self, key: str = USERS[0], *, path: str = "/mcp", capabilities: Any = None) -> LegacyClient:
        client = LegacyClient(f"{self.cell.url}{path}", key, capabilities)
        self._stack.push_async_callback(client.close)
        await client.open()
        return client

    async def browser(self) -> Browser:
        return await self._stack.enter_async_context(a_browser())


@asynccontextmanager
async def scene(
    server: OauthServer, *, state_dir: str = "", more: Sequence[Any] = (), port: int | None = None, **backend: Any
) -> AsyncIterator[Scene]:
    files = {"name": "files", "replicas": [server.mcp_url], "auth": "user", "allow_private": True, **backend}
    gateway: dict[str, Any] = {"state_dir": state_dir, **({"port": port} if port else {})}
    settings = cell_settings([{"prefix": "", **files} if not more else files, *more], gateway=gateway, auth=AUTH)
    async with AsyncExitStack() as stack, running_cell(settings) as cell:
        yield Scene(server, cell, stack)
        await stack.aclose()


def on_loop(body: Callable[[OauthServer], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience(), oauth_server() as server:
            await body(server)

    asyncio.run(run())


def test_the_first_call_asks_for_consent_and_the_second_goes_through() -> None:
    """Source: MCP 2025-11-25, client/elicitation, "URL Mode with Elicitation Required Error Flow"."""

    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            # 1. A session is there without the server's, and has a tool to begin with.
            client = await on.client()
            listed = await client.ask("tools/list")
            assert [tool["name"] for tool in listed["result"]["tools"]] == ["connect"]
            # 2. A call asks for consent, and the page says for whom.
            url = consent_url(await client.call())
            assert url.startswith(f"{on.cell.url}/mcp/oauth/connect?link=")
            browser = await on.browser()
            status, page = await browser.get(url)
            assert status == 200
            assert "ann-key" in page
            status, page = await browser.consent(url)
            assert status == 200
            assert "files can be used now" in page
            # 3. From then on the server is shown that user.
            assert text_of(await client.call()) == "ann"
            listed = await client.ask("tools/list")
            assert [tool["name"] for tool in listed["result"]["tools"]] == ["whoami"]
            assert not [each for each in server.seen_authorizations if "ann-key" in each], "a client's own token"

    on_loop(body)


def test_a_person_consents_in_a_real_browser(browser: Chromium) -> None:
    """It takes the origin of the form from the page's referrer policy; the link itself is told to no other site."""

    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client = await on.client()
            url = consent_url(await client.call())
            await asyncio.to_thread(browser.open, url)
            await asyncio.to_thread(browser.click, "button")
            await asyncio.to_thread(browser.wait_for, "h1", "files can be used now")
            assert text_of(await client.call()) == "ann"
            assert not any(url.partition("?")[2] in referrer for referrer in server.seen_referrers)
            assert await asyncio.to_thread(browser.problems) == []

    on_loop(body)


def test_users_are_shown_as_themselves_and_nobody_as_somebody_else() -> None:
    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            ann, bob, browser = await on.client(USERS[0]), await on.client(USERS[1]), await on.browser()
            await browser.consent(consent_url(await ann.call()))
            consent_url(await bob.call())  # what ann has consented to is nothing to bob
            server.user = "bob"
            await browser.consent(consent_url(await bob.call()))
            assert [text_of(await each.call()) for each in (ann, bob, ann)] == ["ann", "bob", "ann"]
            sessions = len(server.sessions)
            assert sessions >= 2, "no session of the server is shared"

    on_loop(body)


def test_a_modern_client_is_asked_and_its_retry_waits_for_the_consent() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr."""

    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client = ModernClient(f"{on.cell.url}/mcp", USERS[0])
            try:
                discovered = await client.ask("server/discover")
                assert "2026-07-28" in discovered["result"]["supportedVersions"]
                listed = await client.ask("tools/list")
                assert [tool["name"] for tool in listed["result"]["tools"]] == ["connect"]
                asked = (await client.call())["result"]
                assert asked["resultType"] == "input_required"
                ((key, entry),) = asked["inputRequests"].items()
                assert (entry["method"], entry["params"]["mode"]) == ("elicitation/create", "url")
                # The user says yes first, and consents a little later.
                retry = asyncio.ensure_future(client.call(inputResponses={key: {"action": "accept"}}))
                await asyncio.sleep(0.1)
                await (await on.browser()).consent(entry["params"]["url"])
                assert text_of(await retry) == "ann"
                assert text_of(await client.call()) == "ann"
                declined = await client.call(inputResponses={key: {"action": "decline"}})
                assert declined["error"]["data"]["reason"] == "forbidden"
            finally:
                await client.close()

    on_loop(body)


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
def test_a_client_that_takes_no_address_is_refused_with_it(capabilities: Any) -> None:
    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client = await on.client(capabilities=capabilities)
            refused = await client.call()
            assert client.status == 403
            assert refused["error"]["code"] == 4033
            assert refused["error"]["data"]["reason"] == "consent_required"
            status, _ = await (await on.browser()).consent(refused["error"]["data"]["url"])
            assert status == 200
            assert text_of(await client.call()) == "ann"

    on_loop(body)


def test_a_merged_server_has_the_others_at_once_and_one_tool_that_asks() -> None:
    async def body(server: OauthServer) -> None:
        demo = {"name": "demo", "builtin": "demo"}
        async with scene(server, more=[demo]) as on:
            client = await on.client()
            names = {tool["name"] for tool in (await client.ask("tools/list"))["result"]["tools"]}
            assert "demo__echo" in names
            assert "files__connect" in names
            await (await on.browser()).consent(consent_url(await client.call("files__connect")))
            names = {tool["name"] for tool in (await client.ask("tools/list"))["result"]["tools"]}
            assert "files__connect" not in names
            assert text_of(await client.call("files__whoami")) == "ann"

    on_loop(body)


def test_who_has_consented_is_logged_in_after_a_restart_and_asked_anew_once_the_server_takes_it_back(tmp_path: Path) -> None:
    async def body(server: OauthServer) -> None:
        port = free_port()
        async with scene(server, state_dir=str(tmp_path), port=port) as on:
            await (await on.browser()).consent(consent_url(await (await on.client()).call()))
        async with scene(server, state_dir=str(tmp_path), port=port) as on:
            client = await on.client()
            assert text_of(await client.call()) == "ann"
            assert server.count("/authorize") == 1
            server.revoke()
            await (await on.browser()).consent(consent_url(await client.call()))
            assert text_of(await client.call()) == "ann"
            assert server.count("/authorize") == 2
            assert server.count("/register") == 1, "the gateway is registered once"

    on_loop(body)


def test_a_token_is_renewed_once_for_all_who_wait() -> None:
    async def body(server: OauthServer) -> None:
        server.expires_in = 1  # so that each is as good as over
        async with scene(server) as on:
            client = await on.client()
            await (await on.browser()).consent(consent_url(await client.call()))
            assert text_of(await client.call()) == "ann"
            server.expires_in = 3600
            before = server.count("/token")
            clients = [await on.client() for _ in range(5)]
            answers = await asyncio.gather(*(each.call() for each in clients))
            assert [text_of(answer) for answer in answers] == ["ann"] * 5
            assert server.count("/token") == before + 1
            # One that the server takes back early is renewed as well, without a word to the user.
            server.tokens.clear()
            answers = await asyncio.gather(*(each.call() for each in clients))
            assert [text_of(answer) for answer in answers] == ["ann"] * 5
            assert server.count("/token") == before + 2
            assert server.count("/authorize") == 1

    on_loop(body)


def test_a_call_that_needs_more_asks_for_all_that_was_granted_and_for_that() -> None:
    """Source: MCP 2025-11-25, basic/authorization, "Step-Up Authorization Flow"."""

    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client, browser = await on.client(), await on.browser()
            await browser.consent(consent_url(await client.call()))
            assert text_of(await client.call()) == "ann"
            server.scopes_needed = ("write",)
            url = consent_url(await client.call())
            assert "read, write" in (await browser.get(url))[1]
            await browser.consent(url)
            assert text_of(await client.call()) == "ann"
            # A server that is never content is believed once.
            server.tokens = {token: (user, ("read",)) for token, (user, _) in server.tokens.items()}
            assert (await client.call())["error"]["data"]["reason"] == "forbidden"

    on_loop(body)


def test_a_user_who_is_denied_and_let_in_again_is_asked_anew() -> None:
    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client, other = await on.client(USERS[0]), await on.client(USERS[1])
            for each in (client, other):
                await (await on.browser()).consent(consent_url(await each.call()))
                assert text_of(await each.call()) == "ann"
            settings = on.cell.settings
            on.cell.cell.apply_settings(attrs.evolve(settings, revocations=Revocations(subjects=(USERS[0],))))
            await client.call()
            assert client.status == 401
            on.cell.cell.apply_settings(settings)
            again = await on.client(USERS[0])
            consent_url(await again.call())
            assert text_of(await other.call()) == "ann"

    on_loop(body)


def test_what_an_authorization_server_lacks_is_said_on_the_page_and_kept_from_the_client() -> None:
    async def body(server: OauthServer) -> None:
        async with scene(server) as on:
            client, browser = await on.client(), await on.browser()
            for metadata in (
                {"issuer": "http://127.0.0.1:1"},
                {"code_challenge_methods_supported": ["plain"]},
                {"registration_endpoint": ""},
            ):
                server.metadata = metadata
                url = consent_url(await client.call())
                status, page = await browser.consent(url)
                assert status == 400
                assert "This did not work" in page
            assert server.count("/authorize") == server.count("/token") == 0

    on_loop(body)
