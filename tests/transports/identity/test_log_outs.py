"""Which credentials a logout ends: those of its subject or session that are not newer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import LogOut
from mcp_gateway.transports.identity.log_outs import LogOuts
from mcp_gateway.transports.ports.principal import Principal

ISSUER = "https://id.example"


def shown(subject: str = "alice", session: str = "", issued_ms: int = 1_000, issuer: str = ISSUER) -> Principal:
    return Principal(issuer=issuer, subject=subject, session=session, issued_ms=issued_ms)


def ended(principal: Principal, *, subject: str = "", session: str = "", issued_ms: int = 1_000) -> bool:
    return LogOuts([LogOut(issuer=ISSUER, subject=subject, session=session, issued_ms=issued_ms)]).ended(principal)


def test_what_was_issued_until_then_has_ended_and_what_comes_after_the_next_login_has_not() -> None:
    assert ended(shown(issued_ms=1_000), subject="alice")
    assert not ended(shown(issued_ms=1_001), subject="alice")
    assert ended(shown(issued_ms=0), subject="alice"), "nobody says when it was issued"


def test_of_a_session_those_end_that_are_of_it_and_those_that_do_not_say_of_which_they_are() -> None:
    assert ended(shown(session="s1"), subject="alice", session="s1")
    assert not ended(shown(session="s2"), subject="alice", session="s1")
    assert ended(shown(session=""), subject="alice", session="s1")
    assert ended(shown(session="s1", subject="pairwise"), session="s1")
    assert not ended(shown(session="", subject="bob"), subject="alice", session="s1")


def test_a_subject_ends_in_each_of_its_sessions_and_nobody_else_does() -> None:
    assert ended(shown(session="s2"), subject="alice")
    assert not ended(shown(subject="bob"), subject="alice")
    assert not ended(shown(issuer="https://other.example"), subject="alice")
    assert not ended(shown(issuer="api-key"), subject="alice")


def test_one_that_names_nobody_ends_everybody_of_its_issuer() -> None:
    assert ended(shown(subject="anybody", session="s9"))
    assert not ended(shown(issuer="https://other.example"))


_NAMES = st.sampled_from(["", "a", "b"])


@given(st.lists(st.tuples(_NAMES, _NAMES, st.integers(0, 9))), st.sampled_from("ab"), _NAMES, st.integers(0, 9))
def test_many_end_what_any_of_them_ends(told: list[tuple[str, str, int]], subject: str, session: str, issued_ms: int) -> None:
    principal = shown(subject, session, issued_ms)
    log_outs = [LogOut(issuer=ISSUER, subject=who, session=where, issued_ms=when) for who, where, when in told]
    assert LogOuts(log_outs).ended(principal) == any(LogOuts([each]).ended(principal) for each in log_outs)
