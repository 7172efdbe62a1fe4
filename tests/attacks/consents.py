"""Logins at servers in somebody else's name."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import attrs

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack
from tests.doubles.oauth_server import (
    Browser,
    LegacyClient,
    OauthServer,
    a_browser,
    consent_url,
    oauth_server,
    query_of,
    text_of,
)
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

_MALLORY, _VICTIM = "mallory-key", "victim-key"
_KEYS = [{"name": key, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"} for key in (_MALLORY, _VICTIM)]


@attrs.frozen
class _Scene:
    """A gateway of the attack's own before a server whose users consent; nobody has consented yet."""

    cell: RunningCell
    server: OauthServer
    mallory: LegacyClient
    victim: LegacyClient
    browser: Browser
    victims_browser: Browser

    async def link(self, client: LegacyClient | None = None) -> str:
        return consent_url(await (client or self.mallory).call())

    async def way_to_server(self, link: str, browser: Browser) -> str:
        """Where the browser is sent after its page was confirmed."""
        status, page = await browser.get(link)
        assert status == 200
        status, _, address = await browser.press(link, page, follows=False)
        assert status == 303
        return address

    async def is_nobody(self, client: LegacyClient) -> None:
        """The client's user has no account at the server."""
        await self.link(client)


@asynccontextmanager
async def _scene() -> AsyncIterator[_Scene]:
    async with oauth_server() as server, a_browser() as browser, a_browser() as victims_browser:
        files = {"name": "files", "prefix": "", "replicas": [server.mcp_url], "auth": "user", "allow_private": True}
        async with running_cell(cell_settings([files], auth={"api_keys": _KEYS})) as cell:
            clients = [LegacyClient(f"{cell.url}/mcp", key) for key in (_MALLORY, _VICTIM)]
            try:
                for client in clients:
                    await client.open()
                yield _Scene(cell, server, *clients, browser, victims_browser)
            finally:
                for client in clients:
                    await client.close()


@attack("status 400", tries=1, at_once=1, long_tries=4)
async def an_answer_in_another_browser(arena: Arena) -> str:
    """Mallory confirms, and has the victim log in and take the way back: the victim's account would be Mallory's."""
    async with _scene() as on:
        address = await on.way_to_server(await on.link(), on.browser)
        on.server.user = "victim"
        status, _ = await on.victims_browser.get(address)
        await on.is_nobody(on.mallory)
        return f"status {status}"


@attack("status 400", tries=1, at_once=1, long_tries=4)
async def a_confirmation_for_another_browser(arena: Arena) -> str:
    """A form of another site that confirms Mallory's address in the victim's browser, with the proof of Mallory's page."""
    async with _scene() as on:
        link = await on.link()
        _, page = await on.browser.get(link)
        await on.victims_browser.get(await on.link(on.victim))  # so that it has a cookie of its own
        status, _, _ = await on.victims_browser.press(link, page, follows=False)
        assert on.server.count("/authorize") == 0
        await on.is_nobody(on.mallory)
        return f"status {status}"


@attack("status 400", tries=1, at_once=1, long_tries=4)
async def an_answer_twice(arena: Arena) -> str:
    """The way back, taken a second time with another code."""
    async with _scene() as on:
        address = await on.way_to_server(await on.link(), on.browser)
        status, _ = await on.browser.get(address)
        assert status == 200
        answer = {"code": "stolen", "state": query_of(address)["state"], "iss": on.server.issuer}
        before = on.server.count("/token")
        status, _ = await on.browser.get(f"{on.cell.url}/mcp/oauth/callback?{urlencode(answer)}")
        assert on.server.count("/token") == before
        return f"status {status}"


@attack("status 400", tries=1, at_once=1, long_tries=4)
async def an_answer_of_another_issuer(arena: Arena) -> str:
    """An authorization server that answers in the place of another one (mix-up): the code would go to the wrong one."""
    async with _scene() as on:
        on.server.answer_extra = {"iss": "https://evil.example"}
        address = await on.way_to_server(await on.link(), on.browser)
        status, _ = await on.browser.get(address)
        assert on.server.count("/token") == 0
        await on.is_nobody(on.mallory)
        return f"status {status}"


@attack("status 400", tries=1, at_once=1, long_tries=4)
async def addresses_and_answers_of_nobody(arena: Arena) -> str:
    """Addresses of consent that were altered, and ways back with states that were made up."""
    async with _scene() as on:
        link = await on.link()
        found = set()
        for bad in (link[:-1], f"{link[:-5]}AAAAA", link.partition("=")[0], f"{link}%00"):
            found.add((await on.browser.get(bad))[0])
        for state in ("", "x", "x" * 5_000, "../../etc/passwd", "' OR 1=1 --"):
            query = urlencode({"code": "c", "state": state})
            found.add((await on.browser.get(f"{on.cell.url}/mcp/oauth/callback?{query}"))[0])
        assert on.server.count("/token") == on.server.count("/authorize") == 0
        (status,) = found
        return f"status {status}"


@attack("status 405", "status 403", tries=1, at_once=1, long_tries=4)
async def pages_that_are_framed_or_posted_to(arena: Arena) -> str:
    """The pages of consent in a frame of another site, from a script of it, and with other verbs."""
    async with _scene() as on:
        link = await on.link()
        _, _ = await on.browser.get(link)
        framed, _ = await on.browser.get(
            link, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        )
        scripted, _ = await on.browser.get(link, Origin="https://evil.example")
        assert (framed, scripted) == (403, 403)
        status = await on.browser.status_of("DELETE", link)
        return f"status {status}"


@attack(HARMLESS, tries=1, at_once=1, long_tries=4)
async def the_account_of_another_user(arena: Arena) -> str:
    """Mallory uses a server at which only the victim has consented: by calls, by the victim's session, by headers."""
    async with _scene() as on:
        on.server.user = "victim"
        status, _ = await on.victims_browser.consent(await on.link(on.victim))
        assert status == 200
        assert text_of(await on.victim.call()) == "victim"
        on.mallory.headers |= {"X-User": _VICTIM, "X-Forwarded-User": _VICTIM}
        await on.is_nobody(on.mallory)
        stolen: dict[str, Any] = {"Mcp-Session-Id": on.victim.headers["Mcp-Session-Id"]}
        on.mallory.headers |= stolen
        assert "result" not in await on.mallory.call()
        assert on.mallory.status == 404
        assert {user for _, user in on.server.calls} == {"victim"}
        return HARMLESS


@attack(HARMLESS, tries=1, at_once=1, long_tries=4)
async def a_token_of_the_client_for_the_server(arena: Arena) -> str:
    """A client that sends its own token along in every place: the server never sees it."""
    async with _scene() as on:
        on.mallory.headers |= {"Proxy-Authorization": f"Bearer {_MALLORY}", "X-Authorization": f"Bearer {_MALLORY}"}
        await on.browser.consent(await on.link())
        assert text_of(await on.mallory.call()) == "ann"
        assert not [each for each in on.server.seen_authorizations if _MALLORY in each]
        return HARMLESS
