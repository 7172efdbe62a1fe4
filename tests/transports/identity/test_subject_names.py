"""Names, patterns, and names of an issuer's own, as `denied_subjects` and `operators` have them."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.identity.subject_names import SubjectNames
from mcp_gateway.transports.ports.principal import Principal

ANN = Principal(issuer="https://id.example", subject="team-ann")


@pytest.mark.parametrize(
    ("name", "has_her"),
    [
        ("team-ann", True),
        ("https://id.example team-ann", True),
        ("team-*", True),
        ("https://id.example *", True),
        ("*", True),
        ("**ann", True),
        ("ann", False),
        ("team-an", False),
        ("team.ann", False),
        ("https://other.example team-ann", False),
        ("https://other.example *", False),
    ],
)
def test_a_principal_is_among_those_whom_a_name_means(name: str, has_her: bool) -> None:
    assert SubjectNames([name]).has(ANN) is has_her
    assert SubjectNames(["bob", name]).has(ANN) is has_her


def test_no_names_mean_nobody() -> None:
    assert not SubjectNames([]).has(ANN)
