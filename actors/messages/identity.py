"""Who a client is: what the loop asks the actor that has the issuers' keys, and its answers."""

from __future__ import annotations

import attrs

from mcp_gateway.config.identity_settings import AuthSettings, LogOut
from mcp_gateway.transports.ports.principal import Principal


@attrs.frozen(kw_only=True)
class VerifyToken:
    """Known clients -> identity: whom does this access token stand for?

    auth, public_url: what holds at this moment, so that a reload needs no message of its own.
    """

    request_id: str
    token: bytes = attrs.field(repr=False)
    auth: AuthSettings = attrs.field(repr=False)
    public_url: str


@attrs.frozen(kw_only=True)
class TokenVerified:
    """Identity -> known clients: for this principal. check_again_ms: since the epoch; until then nobody need ask."""

    request_id: str
    principal: Principal = attrs.field(repr=False)
    check_again_ms: int


@attrs.frozen(kw_only=True)
class VerifyLogOut:
    """Known clients -> identity: whom has its issuer logged out, as this logout token says? Otherwise as `VerifyToken`."""

    request_id: str
    token: bytes = attrs.field(repr=False)
    auth: AuthSettings = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class LogOutVerified:
    """Identity -> known clients: this is so."""

    request_id: str
    log_out: LogOut = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class TokenRejected:
    """Identity -> known clients: for nobody. text: why, for the client."""

    request_id: str
    text: str


@attrs.frozen(kw_only=True)
class IssuerUnreachable:
    """Identity -> known clients: whoever must know cannot be asked."""

    request_id: str
    text: str


@attrs.frozen(kw_only=True)
class VerificationLost:
    """Identity -> known clients: this incarnation ends before it has an answer; ask the next one."""

    request_id: str
