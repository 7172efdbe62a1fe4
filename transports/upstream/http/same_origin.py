"""Where a server may lead us: anywhere within its own origin, so that its headers, which hold secrets, stay there. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin, urlsplit

MAX_REDIRECTS: Final = 3

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Source: RFC 9110, section 15.4: only these keep the method and the body of a POST.
_KEEPING: Final = frozenset({307, 308})


class LedAstray(Exception):
    """The server names an address that is none, or that belongs to another origin."""


def is_redirect(verb: str, status: int) -> bool:
    """Whether the answer only says where to ask, and asking there is the same request."""
    return status in (_REDIRECTS if verb == "GET" else _KEEPING)


def address_within_origin(url: str, reference: str) -> str:
    """The address that a server at `url` means by an absolute or relative reference.

    Raises: LedAstray.
    """
    try:
        target = urljoin(url, reference.strip())
        is_same = _origin(target) == _origin(url)
    except ValueError:
        raise LedAstray("the server names an address that is none") from None
    if not is_same:
        raise LedAstray("the server names an address of another origin")
    return target


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
