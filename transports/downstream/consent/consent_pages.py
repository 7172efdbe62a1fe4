"""What the person at the browser reads, and how that browser is known again. Pure."""

from __future__ import annotations

import hashlib
import re
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import parse_qsl

from mcp_gateway.transports.ports.consents import ConsentAsked

COOKIE: Final = "mcp_gateway_consent"
_MOST_PARAMETERS: Final = 20
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")  # as it is made; a quoted one may have anything in it, line ends as well

# Framed by nobody, told to no other site: the address of this page, and of the answer, is part of the proof. A form leads to a
# redirect, which browsers hold against `form-action` as well. Source: RFC 9700, sections 4.2.4 and 4.16.
# With "no-referrer" they would send the form with the origin "null", like anybody's. Source: Fetch standard, section 3.2.
SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'self' https: http:; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
dt {{ font-weight: 600; }}
dd {{ margin: 0 0 .6rem; overflow-wrap: anywhere; }}
button {{ font: inherit; padding: .4rem 1.2rem; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


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
    return _page(f"Use {asked.backend}?", body)


def done_page(done: ConsentAsked) -> bytes:
    return _page(f"{done.backend} can be used now", "<p>Close this page and go back to your client.</p>")


def failed_page(text: str) -> bytes:
    return _page("This did not work", f"<p>{escape(text)}.</p>")


def parameters(text: str) -> dict[str, str]:
    """Of a query or a form, each as it first came; {} for more than any of ours has."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="replace")
    except ValueError:
        return {}
    return {name: value for name, value in reversed(pairs)}


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


def _page(title: str, body: str) -> bytes:
    return _PAGE.format(title=escape(title), body=body).encode()
