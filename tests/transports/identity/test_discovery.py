"""Where metadata is looked for, and which of it is believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.identity.discovery import IssuerMetadata, MetadataUnusable, metadata_urls, read_metadata

HOST = "https://id.example"


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (HOST, ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")),
        (f"{HOST}/", ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")),
        (
            f"{HOST}/tenant/one",
            (
                "/.well-known/oauth-authorization-server/tenant/one",
                "/.well-known/openid-configuration/tenant/one",
                "/tenant/one/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_metadata_is_looked_for_where_both_specifications_have_it(issuer: str, urls: tuple[str, ...]) -> None:
    assert metadata_urls(issuer) == tuple(HOST + url for url in urls)


def test_metadata_says_where_the_keys_are() -> None:
    document = json.dumps({"issuer": HOST, "jwks_uri": f"{HOST}/keys"}).encode()
    assert read_metadata(document, HOST) == IssuerMetadata(f"{HOST}/keys")


@pytest.mark.parametrize("said", ["https://evil.example", f"{HOST}/", "", None, [HOST]])
def test_metadata_of_another_issuer_is_not_believed(said: object) -> None:
    document = json.dumps({"issuer": said, "jwks_uri": f"{HOST}/keys"}).encode()
    with pytest.raises(MetadataUnusable):
        read_metadata(document, HOST)


@given(
    st.binary(max_size=100) | st.sampled_from([b"[]", b"{}", b"[" * 9_000, json.dumps({"issuer": HOST, "jwks_uri": 1}).encode()])
)
def test_any_bytes_are_metadata_or_refused(document: bytes) -> None:
    with pytest.raises(MetadataUnusable):
        read_metadata(document, HOST)
