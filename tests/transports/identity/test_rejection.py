"""An unknown key is a rejection, so that whoever does not tell them apart refuses."""

from __future__ import annotations

from mcp_gateway.transports.identity.rejection import CredentialRejected, KeyUnknown


def test_an_unknown_key_is_a_rejection_too() -> None:
    assert issubclass(KeyUnknown, CredentialRejected)
