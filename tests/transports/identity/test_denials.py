"""Who is refused by name, pattern or fingerprint."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.identity.denials import Denials, reinstated, still_denied
from mcp_gateway.transports.ports.principal import Principal

ALICE = Principal(issuer="https://id.example", subject="alice", fingerprint="f1")


@pytest.mark.parametrize("subject", ["alice", "al*", "*", "*ice", "https://id.example alice", "https://id.example *", "a*l*e"])
def test_a_subject_is_denied_by_its_name_a_pattern_or_with_its_issuer(subject: str) -> None:
    assert Denials([subject]).deny(ALICE)


@pytest.mark.parametrize("subject", ["", "ali", "Alice", "alice*x", "https://other alice", "a?ice", "[a]lice", "a.ice", "alic."])
def test_others_are_not(subject: str) -> None:
    assert not Denials([subject]).deny(ALICE)


def test_a_credential_is_denied_by_its_fingerprint() -> None:
    assert Denials((), ["f1"]).deny(ALICE)
    assert not Denials((), ["f2"]).deny(ALICE)
    assert not Denials((), ()).deny(Principal(issuer="proxy", subject="x"))


def test_a_pattern_spans_lines() -> None:
    assert Denials(["a*b"]).deny(Principal(issuer="i", subject="a\nb"))


@pytest.mark.parametrize(
    ("name", "entries", "still"),
    [
        ("bob", ["api-key bob", "alice"], ["api-key bob"]),
        ("bob", ["https://id.example bob", "b*", "proxy *"], ["https://id.example bob", "b*", "proxy *"]),
        ("api-key bob", ["bob", "https://id.example bob", "api-key *"], ["bob", "api-key *"]),
        ("Ann Smith", ["Ann", "Smith", "proxy Ann Smith"], ["proxy Ann Smith"]),
        ("team-*", ["team-a", "api-key team-b", "other"], ["team-a", "api-key team-b"]),
        ("bob", ["bobby", "api-key bobby"], []),
    ],
)
def test_who_is_given_access_back_may_be_denied_by_other_names(name: str, entries: list[str], still: list[str]) -> None:
    assert still_denied(name, entries) == still
    assert (reinstated(name, entries) == f"{name} has access again") is (still == [])
    assert all(repr(entry) in reinstated(name, entries) for entry in still)
