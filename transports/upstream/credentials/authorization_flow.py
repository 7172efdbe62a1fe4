"""The authorization code flow with PKCE from the gateway's side: what it asks for, and what of the answer it believes. Pure.

Source: OAuth 2.1 (draft 13), sections 4.1 and 7.5; RFC 7636; RFC 8707; RFC 9207; RFC 7591; MCP 2025-11-25, basic/authorization.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import attrs
import msgspec

from .discovery import AuthorizationServer, MetadataRefused, is_same_issuer
from .tokens import Tokens

_OFFLINE: Final = "offline_access"
_METHODS: Final = ("client_secret_basic", "client_secret_post")
_LONGEST_ID: Final = 2_000
_decode = msgspec.json.Decoder(dict[str, Any]).decode
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"


class FlowRefused(Exception):
    """The flow ends here. The text is for the person at the browser."""


class ClientIdentity(msgspec.Struct, frozen=True, array_like=True):
    """Whom an authorization server knows the gateway as. method: how it says so at the token endpoint."""

    id: str
    secret: str = ""
    method: str = "none"

    def __repr__(self) -> str:
        return f"ClientIdentity({self.id!r})"


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What a token was given out on, and is renewed on."""

    issuer: str
    token_endpoint: str
    resource: str
    client: ClientIdentity


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What the vault keeps of one user at one server."""

    tokens: Tokens
    terms: Terms


class Flow(msgspec.Struct, frozen=True, array_like=True):
    """One flow under way, between the redirect to the authorization server and its answer.

    browser:  hash of what the browser that began it has as a cookie.
    verifier: of PKCE. names_issuer: as in `AuthorizationServer`.
    """

    backend: str
    principal: str
    browser: bytes
    verifier: str
    redirect_uri: str
    scopes: tuple[str, ...]
    names_issuer: bool
    terms: Terms

    def __repr__(self) -> str:
        return f"Flow({self.backend!r})"


def wanted_scopes(
    configured: tuple[str, ...],
    challenged: tuple[str, ...],
    granted: tuple[str, ...],
    offered: tuple[str, ...],
) -> tuple[str, ...]:
    """What to ask for: what is configured, with what the server has just named and what was granted before; else what the server
    offers, or nothing. Source: MCP 2025-11-25, basic/authorization, "Scope Selection Strategy" and "Step-Up Authorization Flow".
    """
    named = tuple(dict.fromkeys((*configured, *granted, *challenged)))
    return named or offered


def with_offline_access(scopes: tuple[str, ...], server: AuthorizationServer) -> tuple[str, ...]:
    """Asked for where it is offered: without a refresh token users must consent again every hour.

    Source: OpenID Connect Core 1.0, section 11.
    """
    return (*scopes, _OFFLINE) if _OFFLINE in server.scopes and _OFFLINE not in scopes else scopes


def check_takes_flow(server: AuthorizationServer, *, allow_http: bool) -> None:
    """allow_http: whether the user's browser may be sent to plain HTTP.

    Raises: FlowRefused where the server cannot take this flow, or not safely.
    """
    parts = urlsplit(server.authorization_endpoint)
    if parts.scheme not in (("https", "http") if allow_http else ("https",)) or not parts.hostname or parts.fragment:
        raise FlowRefused("the authorization server has no address where users consent")
    if server.has_pkce is False:
        raise FlowRefused("the authorization server does not take PKCE with S256, without which a code could be stolen")


def authorization_url(server: AuthorizationServer, flow: Flow, state: str) -> str:
    """Where the user's browser goes, of a server that takes the flow."""
    parts = urlsplit(server.authorization_endpoint)
    query = {
        "response_type": "code",
        "client_id": flow.terms.client.id,
        "redirect_uri": flow.redirect_uri,
        "state": state,
        "code_challenge": challenge_of(flow.verifier),
        "code_challenge_method": "S256",
        "resource": flow.terms.resource,
    }
    if flow.scopes:
        query["scope"] = " ".join(flow.scopes)
    if _OFFLINE in flow.scopes:
        query["prompt"] = "consent"  # OpenID Connect Core 1.0, section 11: else it may be ignored
    own = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in query]
    return urlunsplit(parts._replace(query=urlencode([*own, *query.items()])))


def challenge_of(verifier: str) -> str:
    """Source: RFC 7636, section 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def code_in(answer: Mapping[str, str], flow: Flow) -> str:
    """The code that the browser has brought back. answer: the query of the redirect.

    Source: RFC 9207, section 2.4: simple string comparison, and an error counts only where its issuer is the right one.

    Raises: FlowRefused.
    """
    issuer = answer.get("iss")
    if issuer is None and flow.names_issuer:
        raise FlowRefused("the answer does not say which authorization server it comes from, as that one always does")
    if issuer is not None and issuer != flow.terms.issuer:
        raise FlowRefused("the answer comes from another authorization server than the one that was asked")
    if "error" in answer:
        denied = answer["error"] == "access_denied"
        raise FlowRefused("access was denied there" if denied else "the authorization server refuses")
    code = answer.get("code", "")
    if not code or len(code) > 8_192:
        raise FlowRefused("the answer has no code")
    return code


# ---- requests to the token endpoint


def code_form(flow: Flow, code: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": flow.redirect_uri,
        "code_verifier": flow.verifier,
        "resource": flow.terms.resource,
    }


def refresh_form(grant: Grant) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": grant.tokens.refresh, "resource": grant.terms.resource}


def client_credentials_form(resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    return {"grant_type": "client_credentials", "resource": resource, **_scope(scopes)}


def exchange_form(subject_token: str, resource: str, scopes: tuple[str, ...]) -> dict[str, str]:
    """The client's token goes to the authorization server, and never to the MCP server. Source: RFC 8693, section 2.1."""
    return {
        "grant_type": EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "resource": resource,
        **_scope(scopes),
    }


def _scope(scopes: tuple[str, ...]) -> dict[str, str]:
    return {"scope": " ".join(scopes)} if scopes else {}


def authenticated(form: Mapping[str, str], client: ClientIdentity) -> tuple[dict[str, str], dict[str, str]]:
    """(form, headers) with what says who the gateway is. Source: RFC 6749, section 2.3.1."""
    if client.method == "client_secret_basic":
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"
        return dict(form), {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    secret = {"client_secret": client.secret} if client.method == "client_secret_post" else {}
    return {**form, "client_id": client.id, **secret}, {}


# ---- who the gateway is


def auth_method(offered: tuple[str, ...], *, has_secret: bool) -> str:
    """How to say who one is, of what the authorization server offers: Basic where it does not say (RFC 8414, section 2)."""
    if not has_secret:
        return "none"
    return next((method for method in _METHODS if method in (offered or _METHODS)), _METHODS[0])


def client_document(client_id: str, redirect_uri: str) -> dict[str, Any]:
    """The document that `client_id` is the URL of. Source: draft-ietf-oauth-client-id-metadata-document-00, section 4."""
    return {"client_id": client_id, **registration(redirect_uri)}


def registration(redirect_uri: str) -> dict[str, Any]:
    """What is registered where nothing else is known. Source: RFC 7591, section 2; SEP-837 for the application type."""
    return {
        "client_name": "mcp-gateway",
        "application_type": "native" if urlsplit(redirect_uri).scheme == "http" else "web",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    }


def registration_request(redirect_uri: str, server: AuthorizationServer) -> dict[str, Any]:
    """Without a secret where the authorization server takes that: none can be lost then."""
    offered = server.auth_methods
    method = "none" if "none" in offered else auth_method(offered, has_secret=True)
    return {**registration(redirect_uri), "token_endpoint_auth_method": method}


def read_registration(status: int, body: bytes, server: AuthorizationServer) -> ClientIdentity:
    """Raises: FlowRefused. Source: RFC 7591, section 3.2."""
    try:
        document = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        document = {}
    client_id, secret = document.get("client_id"), document.get("client_secret", "")
    if status not in (200, 201) or not isinstance(client_id, str) or not 0 < len(client_id) <= _LONGEST_ID:
        raise FlowRefused(f"the authorization server does not register the gateway (status {status})")
    secret = secret if isinstance(secret, str) and len(secret) <= _LONGEST_ID else ""
    named = document.get("token_endpoint_auth_method")
    if named in (*_METHODS, "none") and (secret or named == "none"):
        return ClientIdentity(client_id, secret if named != "none" else "", named)
    return ClientIdentity(client_id, secret, auth_method(server.auth_methods, has_secret=bool(secret)))


@attrs.frozen
class KnownClient:
    """What the operator has configured. secret: "" for none."""

    id: str
    secret: str = attrs.field(repr=False, default="")


def identity_without_registration(
    server: AuthorizationServer, configured: KnownClient | None, metadata_url: str
) -> ClientIdentity | None:
    """Whom the gateway is at this authorization server, where it need not register: as configured for it, or by its metadata
    document. metadata_url: "" where nobody could fetch that.

    Source: MCP 2025-11-25, basic/authorization, "Client Registration Approaches", in that order.
    """
    if configured is not None:
        return ClientIdentity(
            configured.id, configured.secret, auth_method(server.auth_methods, has_secret=bool(configured.secret))
        )
    if metadata_url and server.takes_metadata_url:
        return ClientIdentity(metadata_url)
    return None


def chosen_issuer(pinned: str, named: tuple[str, ...]) -> str:
    """The authorization server to ask. pinned: the only one that the operator believes, or "".

    Raises: MetadataRefused.
    """
    if pinned and not any(is_same_issuer(pinned, each) for each in named):
        raise MetadataRefused("the server names another authorization server than the one configured for it")
    return pinned or named[0]
