"""`/mcp/oauth/connect`, `/mcp/oauth/callback` and `/mcp/oauth/client.json`: a user's browser on its way to a server's login.

Source: MCP security best practices, "Confused Deputy Problem": consent of this user, in this browser, before the redirect; MCP
2025-11-25, client/elicitation, "Phishing".
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.pages import HTML, parameters
from mcp_gateway.transports.ports.consents import ConsentAsked, ConsentFailed, Consents
from mcp_gateway.transports.ports.loop_tasks import HeldTasks

from .consent_pages import (
    SECURITY,
    browser_in,
    cookie_for,
    done_page,
    failed_page,
    proof_of,
    question_page,
)

_logger = logging.getLogger(__name__)

CONSENT_PATHS: Final = ("/mcp/oauth/connect", "/mcp/oauth/callback", "/mcp/oauth/client.json")
_COOKIE_S: Final = 1_800
_LARGEST_FORM_BYTES: Final = 65_536


class ConsentEndpoint:
    """Serves them. base_url: where browsers reach the gateway."""

    def __init__(self, consents: Consents, base_url: str) -> None:
        self._consents = consents
        base = urlsplit(base_url)
        self._cookie_path = f"{base.path.rstrip('/')}/mcp/oauth"
        self._is_secure = base.scheme == "https"
        self._tasks = HeldTasks()

    def handle(self, incoming: Incoming) -> None:
        serve = {
            ("GET", "/mcp/oauth/connect"): self._ask,
            ("POST", "/mcp/oauth/connect"): self._begin,
            ("GET", "/mcp/oauth/callback"): self._finish,
            ("GET", "/mcp/oauth/client.json"): self._describe,
        }.get((incoming.method, incoming.path))
        if serve is None:
            method_not_allowed(incoming, "GET, POST" if incoming.path.endswith("/connect") else "GET")
        else:
            self._tasks.start(self._carry_out(incoming, serve(incoming)))

    async def _carry_out(self, incoming: Incoming, work: Awaitable[None]) -> None:
        try:
            await work
        except ConsentFailed as failed:
            _show(incoming, 503 if failed.is_ours else 400, failed_page(str(failed)))
        except Exception:  # a defect of ours must not leave a person waiting
            _logger.exception("a page of consents failed")
            _show(incoming, 500, failed_page("The gateway has failed at it: its log says more"))

    async def _ask(self, incoming: Incoming) -> None:
        link = parameters(incoming.query).get("link", "")
        asked = self._consents.asked_by(link)
        _check_browser_user(incoming, asked)
        browser = browser_in(incoming.headers.get("Cookie", "")) or secrets.token_urlsafe(32)
        _show(incoming, 200, question_page(asked, link, proof_of(browser, link)), self._cookie(browser))

    async def _begin(self, incoming: Incoming) -> None:
        form = parameters(incoming.body[:_LARGEST_FORM_BYTES].decode(errors="replace"))
        link, browser = form.get("link", ""), browser_in(incoming.headers.get("Cookie", ""))
        _check_browser_user(incoming, self._consents.asked_by(link))
        shown = form.get("proof", "").encode(errors="replace")
        if not browser or not secrets.compare_digest(proof_of(browser, link).encode(), shown):
            raise ConsentFailed("this was not confirmed in this browser, or it takes no cookies: open the link again")
        address = await self._consents.begin(link, browser)
        incoming.respond(303, b"", {**SECURITY, "Location": address, "Set-Cookie": self._cookie(browser)})

    async def _finish(self, incoming: Incoming) -> None:
        browser = browser_in(incoming.headers.get("Cookie", ""))
        done = await self._consents.finish(parameters(incoming.query), browser)
        _show(incoming, 200, done_page(done))

    async def _describe(self, incoming: Incoming) -> None:
        """Source: draft-ietf-oauth-client-id-metadata-document-00, section 4."""
        incoming.respond(200, msgspec.json.encode(self._consents.client_document()), {"Cache-Control": "max-age=3600"})

    def _cookie(self, browser: str) -> str:
        return cookie_for(browser, self._cookie_path, is_secure=self._is_secure, max_age_s=_COOKIE_S)


def _check_browser_user(incoming: Incoming, asked: ConsentAsked) -> None:
    """A browser whose user is known, by a proxy or a certificate, consents for nobody else.

    A known gap: a browser that shows nothing is asked by the page alone; a login at the gateway's own issuer would close it.
    Raises: ConsentFailed.
    """
    principal = incoming.principal
    if principal is not None and principal.key != asked.principal:
        raise ConsentFailed("this link was given to another user than the one that this browser is logged in as")


def _show(incoming: Incoming, status: int, page: bytes, cookie: str = "") -> None:
    incoming.respond(status, page, {**SECURITY, **({"Set-Cookie": cookie} if cookie else {})}, content_type=HTML)
