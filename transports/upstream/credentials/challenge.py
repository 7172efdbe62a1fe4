"""What a server says it lacks: the `WWW-Authenticate` of its 401, or of a 403 for want of scopes. Pure.

Source: RFC 9110, section 11.6.1; RFC 6750, section 3; RFC 9728, section 5.1; MCP 2025-11-25, basic/authorization.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

_LONGEST: Final = 8_192
_MOST_SCOPES: Final = 100
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PART: Final = re.compile(
    rf'[\s,]*(?:(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}))'
    rf"|(?P<scheme>{_TOKEN})(?:[ \t]+(?P<token68>[A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?)"
)
_ESCAPED: Final = re.compile(r"\\(.)")


@attrs.frozen(kw_only=True)
class Challenge:
    """status: 401 or 403. error: of RFC 6750, section 3.1, or "". resource_metadata: where the server describes itself, or ""."""

    status: int
    error: str = ""
    scopes: tuple[str, ...] = ()
    resource_metadata: str = ""

    @property
    def wants_scopes(self) -> bool:
        """Whether the token is good, and does not reach far enough."""
        return self.status == 403


def read_challenge(status: int, headers: Mapping[str, str]) -> Challenge | None:
    """What an answer lacks by way of a token; None where it is about something else. headers: lower-case names."""
    parameters = _bearer_parameters(headers.get("www-authenticate", "")[:_LONGEST])
    error = (parameters or {}).get("error", "")
    if status != 401 and not (status == 403 and error == "insufficient_scope"):
        return None
    scopes = tuple(dict.fromkeys((parameters or {}).get("scope", "").split()))[:_MOST_SCOPES]
    return Challenge(status=status, error=error, scopes=scopes, resource_metadata=(parameters or {}).get("resource_metadata", ""))


def _bearer_parameters(header: str) -> dict[str, str] | None:
    """The parameters of the first challenge with the scheme Bearer, each as it first came; None where there is none."""
    found: dict[str, str] | None = None
    position = 0
    while (part := _PART.match(header, position)) is not None and part.end() > position:
        position = part.end()
        if part["scheme"] is not None:
            if found is not None:
                break
            found = {} if part["scheme"].lower() == "bearer" else None
        elif found is not None:
            value = part["plain"] if part["quoted"] is None else _ESCAPED.sub(r"\1", part["quoted"])
            found.setdefault(part["name"].lower(), value)
    return found
