"""What a server says it lacks, in whatever way it writes its header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.credentials.challenge import Challenge, read_challenge

URL = "https://files.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (401, None, Challenge(status=401)),
        (401, "Basic realm=x", Challenge(status=401)),
        (401, "Bearer", Challenge(status=401)),
        (401, f'Bearer resource_metadata="{URL}"', Challenge(status=401, resource_metadata=URL)),
        (401, f'bearer   RESOURCE_METADATA = "{URL}"', Challenge(status=401, resource_metadata=URL)),
        (401, 'Bearer scope="a b a", error="invalid_token"', Challenge(status=401, error="invalid_token", scopes=("a", "b"))),
        (401, 'Bearer realm="say \\"x\\", scope=none",scope=read', Challenge(status=401, scopes=("read",))),
        (401, 'Basic abc==, Bearer scope="r", DPoP scope="w"', Challenge(status=401, scopes=("r",))),
        (401, 'Bearer scope="r", scope="w"', Challenge(status=401, scopes=("r",))),
        (403, 'Bearer error="insufficient_scope", scope="w"', Challenge(status=403, error="insufficient_scope", scopes=("w",))),
        (403, 'Bearer error="invalid_token"', None),
        (403, None, None),
        (200, 'Bearer scope="r"', None),
        (404, None, None),
    ],
)
def test_challenges_are_read_as_the_rfcs_have_them(status: int, header: str | None, expected: Challenge | None) -> None:
    """Source: RFC 6750, section 3; RFC 9110, section 11.6.1."""
    assert read_challenge(status, {} if header is None else {"www-authenticate": header}) == expected


@given(st.text())
def test_any_header_gives_a_challenge(header: str) -> None:
    found = read_challenge(401, {"www-authenticate": f"Bearer {header}"})
    assert found is not None
    assert found.status == 401


def test_a_huge_header_costs_no_more_than_its_beginning() -> None:
    found = read_challenge(401, {"www-authenticate": 'Bearer scope="' + "s " * 5_000_000})
    assert found == Challenge(status=401)
