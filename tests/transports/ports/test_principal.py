"""Who a client has proved to be is told apart by issuer and subject, and by nothing else."""

from __future__ import annotations

import pytest

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.hash_keys import HashKeys, holder_of, is_principal, owner_of, principal_of
from mcp_gateway.transports.ports.principal import Principal

ADA = Principal(issuer="https://id.example", subject="ada")


@pytest.mark.parametrize(
    "other",
    [
        Principal(issuer="https://id.example", subject="bob"),
        Principal(issuer="https://other.example", subject="ada"),
        Principal(issuer="https://id.example/ada", subject=""),
        Principal(issuer="https://id.example", subject=" ada"),
    ],
)
def test_another_subject_or_issuer_is_another_principal(other: Principal) -> None:
    assert other.key != ADA.key


def test_another_login_is_the_same_principal() -> None:
    assert (
        Principal(issuer="https://id.example", subject="ada", client="phone", scopes=frozenset({"x"}), expires_ms=5).key
        == ADA.key
    )


def test_a_request_is_keyed_by_its_principal_whatever_its_query_says() -> None:
    keys = HashKeys(Settings()).of_connection({}, "user_id=bob", "::1", ADA)
    assert principal_of(keys) == ADA.key == keys["user"]
    assert holder_of(keys) == owner_of(keys) == f"principal:{ADA.key}"
    assert is_principal(holder_of(keys))
    assert not is_principal(holder_of({"ip": "::1"}))
