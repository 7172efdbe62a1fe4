"""What a request shows of who sends it. Pure.

Source: RFC 6750, section 2; MCP 2025-11-25 and 2026-07-28, basic/authorization, "Access Token Usage".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.hash_keys import query_value
from mcp_gateway.transports.protocol.mcp.refusals import Refused

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # Source: RFC 6750, section 2.1, b64token
_SCHEME: Final = "bearer"
TICKET: Final = "ticket"
"""The parameter of a query that has a ticket: see `tickets`."""


@attrs.frozen
class ShownTicket:
    """A ticket, from a browser that can set no header."""

    text: str = attrs.field(repr=False)


class CredentialReader:
    """Finds what a request shows, under these settings."""

    def __init__(self, auth: AuthSettings) -> None:
        self._user_header = _as_in_requests(auth.user_header)
        self._groups_header = _as_in_requests(auth.groups_header)

    def read(
        self, headers: Mapping[str, str], query: str, *, is_from_proxy: bool, takes_ticket: bool
    ) -> Credential | ShownTicket | None:
        """None where it shows nothing that this gateway would look at. headers, query: as in `Incoming`.

        is_from_proxy: whether a trusted proxy has sent it, whose word comes first: it has seen the client.
        takes_ticket:  whether the address is one that browsers reach without headers of their own.

        Raises: Refused, where it shows more than one, or one in a way that nobody may.
        """
        if query and query_value(query, "access_token") is not None:
            # It would be in logs, in histories and in referrers. Source: RFC 9700, section 4.3.2, and the clause of MCP.
            raise _refused("a token must not be part of the address; send it in the header Authorization")
        if is_from_proxy and self._user_header and (user := headers.get(self._user_header)):
            return self._of_proxy(user, headers)
        shown = headers.get("Authorization")
        bearer = None if shown is None else _bearer(shown)
        ticket = query_value(query, TICKET) if takes_ticket and query else None
        if ticket is None:
            return bearer
        if bearer is not None:
            raise _refused("show a token or a ticket, not both")
        return ShownTicket(ticket)

    def _of_proxy(self, user: str, headers: Mapping[str, str]) -> Credential:
        if "," in user:  # a header that came twice reads so: one of the two may be the client's own
            raise _refused(f"{self._user_header} names more than one user")
        groups = headers.get(self._groups_header, "") if self._groups_header else ""
        names = tuple(name for each in groups.split(",") if (name := each.strip()))
        return Credential(kind=CredentialKind.PROXY, value=user.strip(), groups=names)


def _bearer(shown: str) -> Credential | None:
    """The token of an Authorization header; None where it is of another scheme, as for a proxy in between, or empty."""
    scheme, _, token = shown.partition(" ")
    token = token.strip()
    return bearer_credential(token) if scheme.lower() == _SCHEME and token else None


def bearer_credential(token: str) -> Credential:
    """An access token or an API key. Raises: Refused where it cannot be one."""
    if _TOKEN.fullmatch(token) is None:
        raise _refused("this is no bearer token, or more than one")
    return Credential(kind=CredentialKind.BEARER, value=token)


def _refused(text: str) -> Refused:
    return Refused("invalid_request", text, data={"error": "invalid_request"})


def _as_in_requests(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))
