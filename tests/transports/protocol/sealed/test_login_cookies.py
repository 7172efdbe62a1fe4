"""What an operator's browser holds is read by this gateway only, and for as long as it says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.login_cookies import Login, read_login, sealed_login
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.tickets import Ticket, sealed_ticket

SEAL = Seal(b"0123456789abcdef")
LOGIN = Login("secret", 1_000)


def test_it_comes_back_until_it_is_over_and_shows_nothing() -> None:
    shown = sealed_login(SEAL, LOGIN)
    assert read_login(SEAL, shown, 999) == LOGIN
    assert read_login(SEAL, shown, 1_000) is None
    assert "secret" not in shown + repr(LOGIN)


def test_what_another_gateway_or_another_purpose_has_sealed_is_none() -> None:
    assert read_login(Seal(b"another secret of another"), sealed_login(SEAL, LOGIN), 0) is None
    assert read_login(SEAL, sealed_ticket(SEAL, Ticket("cell/0", "k", 1_000)), 0) is None


@given(st.text(max_size=200))
def test_whatever_is_shown_is_a_login_or_none(shown: str) -> None:
    assert read_login(SEAL, shown, 0) is None
