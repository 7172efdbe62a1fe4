"""A proof is good with what it was given for, for a while, and with nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.action_proofs import is_proof, proof_for
from mcp_gateway.transports.protocol.sealed.login_cookies import Login, sealed_login
from mcp_gateway.transports.protocol.sealed.sealing import Seal

SEAL = Seal(b"0123456789abcdef")


def test_it_is_good_with_its_holder_until_it_is_over() -> None:
    proof = proof_for(SEAL, "cookie a", 1_000)
    assert is_proof(SEAL, proof, "cookie a", 999)
    assert not is_proof(SEAL, proof, "cookie a", 1_000)
    assert not is_proof(SEAL, proof, "cookie b", 999)
    assert not is_proof(SEAL, proof, "", 999)


def test_what_another_gateway_or_another_purpose_has_sealed_is_none() -> None:
    assert not is_proof(Seal(b"another secret of another"), proof_for(SEAL, "a", 1_000), "a", 0)
    assert not is_proof(SEAL, sealed_login(SEAL, Login("a", 1_000)), "a", 0)


@given(st.text(max_size=200), st.text(max_size=20))
def test_whatever_is_shown_is_no_proof(shown: str, holder: str) -> None:
    assert not is_proof(SEAL, shown, holder, 0)
