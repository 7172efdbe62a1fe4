"""How a browser shows the operator that has logged in with it: a cookie for the operators' pages. It is for reading, but where an
action asks for a proof besides.

It holds the credential itself, sealed: whoever is revoked, or expires, is so here as well.
"""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.protocol.sealed.login_cookies import Login, read_login, sealed_login
from mcp_gateway.transports.protocol.sealed.sealing import Seal

COOKIE: Final = "mcp_gateway_operator"
HOLDS_S: Final = 3_600
LARGEST_COOKIE: Final = 4_000
"""Characters; browsers drop larger ones. Source: RFC 6265, section 6.1."""


class OperatorCookies:
    """base_url: where browsers reach the gateway."""

    def __init__(self, seal: Seal, base_url: str) -> None:
        self._seal = seal
        base = urlsplit(base_url)
        self._attributes = f"Path={base.path.rstrip('/')}/metrics; HttpOnly; SameSite=Strict"
        if base.scheme == "https":
            self._attributes += "; Secure"

    def cookie_for(self, credential: Credential) -> str | None:
        """The header that has the browser show it; None where it is too long for one."""
        login = Login(credential.value, _now_ms() + HOLDS_S * 1_000)
        cookie = f"{COOKIE}={sealed_login(self._seal, login)}"
        return None if len(cookie) > LARGEST_COOKIE else f"{cookie}; {self._attributes}"

    @property
    def farewell(self) -> str:
        """The header that has the browser forget it."""
        return f"{COOKIE}=; {self._attributes}; Max-Age=0"

    def credential_in(self, cookies: str) -> Credential | None:
        """What a request shows. cookies: its header."""
        shown = shown_cookie(cookies)
        login = read_login(self._seal, shown, _now_ms()) if shown else None
        return None if login is None else Credential(kind=CredentialKind.BEARER, value=login.credential)


def shown_cookie(cookies: str) -> str:
    """What the cookie says, as it is sealed; "" where it is not among them."""
    if COOKIE not in cookies:
        return ""
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _now_ms() -> int:
    return int(time.time() * 1000)
