"""Where an authorization server says what it offers, and what of that is needed to check its tokens. Pure.

Source: RFC 8414, section 3; OpenID Connect Discovery 1.0, section 4; MCP 2025-11-25, "Authorization Server Metadata Discovery".
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import attrs
import msgspec


class MetadataUnusable(Exception):
    """What an issuer says of itself is no metadata of that issuer; the text says why."""


@attrs.frozen
class IssuerMetadata:
    """jwks_uri: where its keys are."""

    jwks_uri: str


def metadata_urls(issuer: str) -> tuple[str, ...]:
    """Where to ask, one after the other: as OAuth has it, and as OpenID has it, in both of its ways where there is a path."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")

    def at(path: str) -> str:
        return urlunsplit((parts.scheme, parts.netloc, path, "", ""))

    inserted = (f"/.well-known/{name}{path}" for name in ("oauth-authorization-server", "openid-configuration"))
    urls = (*map(at, inserted), at(f"{path}/.well-known/openid-configuration"))
    return tuple(dict.fromkeys(urls))


def read_metadata(document: bytes, issuer: str) -> IssuerMetadata:
    """Raises: MetadataUnusable. Who names another issuer is not believed: RFC 8414, section 3.3."""
    try:
        metadata = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError):
        raise MetadataUnusable("its metadata is not valid JSON") from None
    if not isinstance(metadata, dict) or metadata.get("issuer") != issuer:
        raise MetadataUnusable("its metadata names another issuer")
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise MetadataUnusable("its metadata does not say where its keys are")
    return IssuerMetadata(jwks_uri)
