"""Whose key is shown."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import ApiKeySettings
from mcp_gateway.transports.identity.api_keys import principal_of_api_key


def setting(name: str, key: bytes) -> ApiKeySettings:
    digest = hashlib.sha256(key).hexdigest()
    return ApiKeySettings(name=name, hash=f"sha256:{digest}", groups=["robots"], scopes=["mcp:tools"])  # type: ignore[arg-type]


KEYS = (setting("ci", b"key of ci"), setting("cron", b"key of cron"))


@pytest.mark.parametrize(("key", "name"), [(b"key of ci", "ci"), (b"key of cron", "cron")])
def test_a_key_is_of_whom_its_hash_names(key: bytes, name: str) -> None:
    found = principal_of_api_key(key, KEYS)
    assert found is not None
    assert (found.issuer, found.subject, found.client) == ("api-key", name, name)
    assert (found.groups, found.scopes) == ({"robots"}, {"mcp:tools"})
    assert len(found.fingerprint) == 32


@pytest.mark.parametrize("key", [b"", b"key of c", b"key of ci ", KEYS[0].hash.encode(), KEYS[0].hash[7:].encode()])
def test_another_key_is_nobodys_and_so_is_a_hash(key: bytes) -> None:
    assert principal_of_api_key(key, KEYS) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_nobodys(key: bytes) -> None:
    assert principal_of_api_key(key, KEYS) is None
    assert principal_of_api_key(key, ()) is None
