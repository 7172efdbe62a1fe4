"""What the person at the browser reads, and how that browser is known again. Pure."""

from __future__ import annotations

import hashlib
import re
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Final

from mcp_gateway.transports.downstream.server.pages import page, page_headers
from mcp_gateway.transports.ports.consents import ConsentAsked

COOKIE: Final = "mcp_gateway_consent"
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")  # as it is made; a quoted one may have anything in it, line ends as well

SECURITY: Final = page_headers("'self' https: http:")


def question_page(asked: ConsentAsked, link: str, proof: str) -> bytes:
    """Who will be able to use what, and the way on. proof: see `proof_of`."""
    issuer, _, subject = asked.principal.partition(" ")
    who = f"{escape(subject)} <small>({escape(issuer)})</small>" if subject else "everybody who uses this gateway on this machine"
    scopes = f"<dt>It asks for</dt><dd>{escape(', '.join(asked.scopes))}</dd>" if asked.scopes else ""
    body = f"""<p>A client of this gateway has asked to use a server in your name. You will log in at that server, not here.</p>
<dl><dt>Server</dt><dd>{escape(asked.backend)}</dd><dt>It will be used by</dt><dd>{who}</dd>{scopes}</dl>
<p>Go on only if this is you, and you have just asked your client for it.</p>
<form method="post">
<input type="hidden" name="link" value="{escape(link)}">
<input type="hidden" name="proof" value="{escape(proof)}">
<button>Log in at {escape(asked.backend)}</button>
</form>"""
    return page(f"Use {asked.backend}?", body)


def done_page(done: ConsentAsked) -> bytes:
    return page(f"{done.backend} can be used now", "<p>Close this page and go back to your client.</p>")


def failed_page(text: str) -> bytes:
    return page("This did not work", f"<p>{escape(text)}.</p>")


def browser_in(cookies: str) -> str:
    """The secret that a browser was given, or ""."""
    try:
        found = SimpleCookie(cookies).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None and _SECRET.fullmatch(found.value) else ""


def cookie_for(browser: str, path: str, *, is_secure: bool, max_age_s: int) -> str:
    """Sent along when the authorization server leads back here, and by no form of another site."""
    secure = "; Secure" if is_secure else ""
    return f"{COOKIE}={browser}; Path={path or '/'}; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"


def proof_of(browser: str, link: str) -> str:
    """What only a page of ours in that browser can send: a link cannot be confirmed from anywhere else."""
    return hashlib.sha256(f"{browser}\n{link}".encode(errors="replace")).hexdigest()
