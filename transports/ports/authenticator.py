"""What the handlers of client connections ask of whoever knows the clients."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import attrs

from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .principal import FOREVER_MS, Principal


class CredentialKind(Enum):
    """How a client shows who it is.

    BEARER:      an access token or an API key, in the header `Authorization`. Source: RFC 6750, section 2.1.
    PROXY:       the user that a trusted proxy names in a header.
    CERTIFICATE: the subject of a client certificate, as RFC 4514 writes it.
    """

    BEARER = "bearer"
    PROXY = "proxy"
    CERTIFICATE = "certificate"


@attrs.frozen(kw_only=True)
class Credential:
    """What one request shows.

    groups:     those that a trusted proxy names beside the user.
    expires_ms: of a certificate, since the epoch.
    """

    kind: CredentialKind
    value: str = attrs.field(repr=False)
    groups: tuple[str, ...] = ()
    expires_ms: int = FOREVER_MS


class LogInRefused(Refused):
    """What a client shows makes it nobody. principal: whom it stands for, where that is known and it is refused all the same."""

    def __init__(self, text: str, principal: Principal | None = None) -> None:
        super().__init__("unauthorized", text)
        self.principal = principal


class Authenticator(Protocol):
    """Knows clients by what they show. On the event loop; outlives the actors behind it."""

    def known(self, credential: Credential) -> Principal | None:
        """Who this is, where that has been found out before and still holds; costs no wait."""

    async def authenticate(self, credential: Credential) -> Principal:
        """Find out who this is.

        Raises: LogInRefused where it is nobody; Refused with upstream_failed where whoever must know cannot be asked.
        """

    def on_end(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once when what the principal has shown expires or is revoked; the function returned calls it off."""
