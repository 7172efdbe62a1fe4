"""What has been checked is known until it ends, is forgotten, or makes room."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.identity.known_credentials import KnownCredentials
from mcp_gateway.transports.ports.principal import Principal

ALICE = Principal(issuer="i", subject="alice", expires_ms=1_000)


def test_a_credential_is_known_until_its_principal_ends() -> None:
    known = KnownCredentials(3)
    known.add(b"a", ALICE, 5_000)
    assert known.find(b"a", 999) is ALICE
    assert known.find(b"b", 999) is None
    assert known.find(b"a", 1_000) is None
    assert len(known) == 0


def test_a_credential_is_known_no_longer_than_was_said() -> None:
    known = KnownCredentials(3)
    known.add(b"a", ALICE, 500)
    assert known.find(b"a", 499) is ALICE
    assert known.find(b"a", 500) is None


def test_what_is_forgotten_is_checked_again() -> None:
    known = KnownCredentials(3)
    known.add(b"a", ALICE, 500)
    known.clear()
    assert known.find(b"a", 0) is None


def test_what_was_not_used_for_longest_makes_room() -> None:
    known = KnownCredentials(2)
    for digest in (b"a", b"b"):
        known.add(digest, ALICE, 500)
    known.find(b"a", 0)
    known.add(b"c", ALICE, 500)
    assert [known.find(digest, 0) for digest in (b"a", b"b", b"c")] == [ALICE, None, ALICE]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2_000), st.booleans())))
def test_there_are_never_more_than_allowed_and_none_beyond_its_end(steps: list[tuple[int, int, bool]]) -> None:
    known, now_ms = KnownCredentials(4), 0
    for number, moment_ms, is_new in steps:
        now_ms += moment_ms // 10
        digest = bytes([number])
        if is_new:
            known.add(digest, attrs.evolve(ALICE, expires_ms=moment_ms), moment_ms + number)
        else:
            found = known.find(digest, now_ms)
            assert found is None or found.expires_ms > now_ms
        assert len(known) <= 4


def test_only_those_are_forgotten_that_hold_no_more() -> None:
    known, bob = KnownCredentials(3), attrs.evolve(ALICE, subject="bob")
    known.add(b"a", ALICE, 500)
    known.add(b"b", bob, 500)
    known.keep(lambda principal: principal.subject != "alice")
    assert [known.find(digest, 0) for digest in (b"a", b"b")] == [None, bob]
