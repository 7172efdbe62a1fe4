"""Which authorization server speaks for a server, and how it is asked: where metadata lies, and what of it is believed. Pure.

Source: RFC 9728, sections 3.1 and 3.3; RFC 8414, sections 3.1 and 3.3; OpenID Connect Discovery 1.0, section 4;
MCP 2025-11-25, basic/authorization, "Authorization Server Discovery"; for servers without metadata of their own MCP 2025-03-26,
basic/authorization, section 2.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec

_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"
_MOST: Final = 200  # of names in one list
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class MetadataRefused(Exception):
    """A document that is malformed, or speaks for somebody else. The text is for people and names nothing secret."""


@attrs.frozen
class ProtectedResource:
    """What a server says of itself. resource: what its tokens are made out to. issuers: its authorization servers, best first."""

    resource: str
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class AuthorizationServer:
    """How an authorization server is asked; "" where it does not offer something.

    auth_methods:   how clients may say who they are at the token endpoint; () where it does not say.
    names_issuer:   it repeats `iss` in each authorization response (RFC 9207).
    takes_metadata_url: a client may be known by the URL of its metadata document.
    has_pkce:       it takes S256; None where it says nothing of PKCE.
    """

    issuer: str
    authorization_endpoint: str = ""
    token_endpoint: str
    registration_endpoint: str = ""
    auth_methods: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    names_issuer: bool = False
    takes_metadata_url: bool = False
    has_pkce: bool | None = None


def resource_metadata_urls(server_url: str, told: str) -> list[str]:
    """Where a server describes itself, in the order of asking. told: in its challenge; then nothing else is tried."""
    if told:
        return [told]
    origin, path = _origin_and_path(server_url)
    return list(dict.fromkeys([f"{origin}{_RESOURCE}{path}", f"{origin}{_RESOURCE}"]))


def read_protected_resource(body: bytes, server_url: str) -> ProtectedResource:
    """Raises: MetadataRefused, also where the document is about another server: its tokens are not for this one."""
    document = _document(body)
    resource = _text(document, "resource")
    if not speaks_for(resource, server_url):
        raise MetadataRefused("the server's metadata is about another resource")
    issuers = _texts(document, "authorization_servers")
    if not issuers:
        raise MetadataRefused("the server's metadata names no authorization server")
    return ProtectedResource(resource, issuers, _texts(document, "scopes_supported"))


def undescribed_resource(server_url: str) -> ProtectedResource:
    """A server without metadata: it is its own authorization server."""
    return ProtectedResource(server_url, (_origin_and_path(server_url)[0],))


def server_metadata_urls(issuer: str) -> list[str]:
    """Where an authorization server describes itself, in the order of asking."""
    origin, path = _origin_and_path(issuer)
    if not path:
        return [f"{origin}{_OAUTH}", f"{origin}{_OPENID}"]
    return [f"{origin}{_OAUTH}{path}", f"{origin}{_OPENID}{path}", f"{origin}{path}{_OPENID}"]


def read_authorization_server(body: bytes, issuer: str) -> AuthorizationServer:
    """Raises: MetadataRefused, also where the document speaks for another issuer, by a single character."""
    document = _document(body)
    own_name = _text(document, "issuer")
    if not is_same_issuer(own_name, issuer):
        raise MetadataRefused("the authorization server's metadata is about another issuer")
    methods = document.get("code_challenge_methods_supported")
    return AuthorizationServer(
        issuer=own_name,
        authorization_endpoint=_text(document, "authorization_endpoint", ""),
        token_endpoint=_text(document, "token_endpoint"),
        registration_endpoint=_text(document, "registration_endpoint", ""),
        auth_methods=_texts(document, "token_endpoint_auth_methods_supported"),
        scopes=_texts(document, "scopes_supported"),
        names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        takes_metadata_url=document.get("client_id_metadata_document_supported") is True,
        has_pkce="S256" in methods if isinstance(methods, list) else None,
    )


def is_same_issuer(one: str, other: str) -> bool:
    """To the letter, but for the slash of a root, which servers of the official SDKs write where issuers do not.

    Source: RFC 8414, section 3.3; RFC 3986, section 6.2.3: an empty path and "/" are one.
    """
    return _without_root_slash(one) == _without_root_slash(other)


def _without_root_slash(url: str) -> str:
    return url[:-1] if re.fullmatch(r"https?://[^/?#]+/", url) else url


def undescribed_authorization_server(server_url: str) -> AuthorizationServer:
    """One without metadata, of a server without metadata. Source: MCP 2025-03-26, basic/authorization, section 2.3.3."""
    origin = _origin_and_path(server_url)[0]
    return AuthorizationServer(
        issuer=origin,
        authorization_endpoint=f"{origin}/authorize",
        token_endpoint=f"{origin}/token",
        registration_endpoint=f"{origin}/register",
    )


def _origin_and_path(url: str) -> tuple[str, str]:
    """Without a query, and the path without a slash at its end."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.rstrip("/")


def speaks_for(resource: str, server_url: str) -> bool:
    """Whether the resource is the server, or all that lies below one of its folders."""
    try:
        own, asked = urlsplit(resource), urlsplit(server_url)
        is_same_origin = (own.scheme, own.hostname, _port(own.scheme, own.port)) == (
            asked.scheme,
            asked.hostname,
            _port(asked.scheme, asked.port),
        )
    except ValueError:
        return False
    return is_same_origin and f"{asked.path.rstrip('/')}/".startswith(f"{own.path.rstrip('/')}/") and not own.fragment


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"https": 443, "http": 80}.get(scheme)


def _document(body: bytes) -> dict[str, Any]:
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise MetadataRefused("metadata is not a JSON object") from None


def _text(document: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str) or len(value) > 4_096 or not value.isprintable():
        raise MetadataRefused(f"metadata has no valid {name}")
    return value


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """What of a list are strings; nothing where it is no list."""
    value = document.get(name)
    listed = value if isinstance(value, list) else []
    return tuple(dict.fromkeys(each for each in listed[:_MOST] if isinstance(each, str) and each.isprintable()))
