"""Short pages for people: their frame, their headers, and what their forms send. Pure."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qsl

HTML: Final = "text/html; charset=utf-8"
_MOST_PARAMETERS: Final = 20
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 3rem auto; padding: 0 1rem; }}
th, td {{ text-align: left; padding: .3rem 1.5rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }}
th, dt {{ font-weight: 600; }}
dd {{ margin: 0 0 .6rem; overflow-wrap: anywhere; }}
code {{ font: .95rem ui-monospace, monospace; user-select: all; }}
button, input {{ font: inherit; padding: .4rem .8rem; }}
input {{ width: 100%; max-width: 30rem; box-sizing: border-box; margin: .3rem 0 1rem; display: block; }}
footer {{ margin-top: 2rem; opacity: .75; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
{footer}</body>
</html>
"""


def page(title: str, body: str, footer: str = "") -> bytes:
    """title: as text. body, footer: as HTML."""
    foot = f"<footer>{footer}</footer>\n" if footer else ""
    return _PAGE.format(title=escape(title), body=body, footer=foot).encode()


NOWHERE: Final = "'none'"


def page_headers(form_action: str = NOWHERE) -> dict[str, str]:
    """Framed by nobody, kept by nobody, told to no other site. form_action: where its form may lead, as `form-action` says it.

    The style is in the page, and there is nothing else that it needs. Browsers hold the redirect that a form leads to against
    `form-action` as well (RFC 9700, sections 4.2.4 and 4.16); with "no-referrer" they would send the form with the origin
    "null", like anybody's (Fetch standard, section 3.2).
    """
    return {
        "Content-Security-Policy": (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
            f"form-action {form_action}; frame-ancestors 'none'"
        ),
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer" if form_action == NOWHERE else "same-origin",
        "Cache-Control": "no-store",
    }


def parameters(text: str) -> dict[str, str]:
    """Of a query or a form, each as it first came; {} for more than any of ours has."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="replace")
    except ValueError:
        return {}
    return {name: value for name, value in reversed(pairs)}
