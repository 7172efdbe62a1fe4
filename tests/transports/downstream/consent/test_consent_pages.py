"""What the person at the browser reads, and how that browser is known again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.consent.consent_pages import (
    SECURITY,
    browser_in,
    cookie_for,
    done_page,
    failed_page,
    proof_of,
    question_page,
)
from mcp_gateway.transports.downstream.server.pages import parameters
from mcp_gateway.transports.ports.consents import ConsentAsked

EVIL = '"><script>alert(1)</script>'


def test_the_page_says_who_will_be_able_to_use_what() -> None:
    page = question_page(ConsentAsked("Files", "https://id.example ann", ("read", "write")), "link", "proof").decode()
    for text in ("Files", "ann", "https://id.example", "read, write", 'value="link"', 'value="proof"'):
        assert text in page
    assert "on this machine" in question_page(ConsentAsked("Files", "", ()), "l", "p").decode()


def test_nothing_that_others_wrote_is_part_of_a_page() -> None:
    asked = ConsentAsked(EVIL, f"{EVIL} {EVIL}", (EVIL,))
    for page in (question_page(asked, EVIL, EVIL), done_page(asked), failed_page(EVIL)):
        assert b"<script" not in page


def test_pages_are_framed_by_nobody_and_tell_no_other_site_where_they_are() -> None:
    assert "frame-ancestors 'none'" in SECURITY["Content-Security-Policy"]
    assert (SECURITY["X-Frame-Options"], SECURITY["Referrer-Policy"], SECURITY["Cache-Control"]) == (
        "DENY",
        "same-origin",
        "no-store",
    )


def test_a_browser_is_known_by_a_cookie_that_no_script_and_no_form_of_another_site_has() -> None:
    cookie = cookie_for("abc", "/mcp/oauth", is_secure=True, max_age_s=60)
    assert cookie == "mcp_gateway_consent=abc; Path=/mcp/oauth; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
    assert "Secure" not in cookie_for("abc", "", is_secure=False, max_age_s=60)
    assert browser_in(f"a=b; {cookie}") == "abc"
    assert browser_in("a=b") == browser_in("") == browser_in(f"mcp_gateway_consent={'x' * 201}") == ""


@pytest.mark.parametrize("value", ['"a\\015\\012Set-Cookie: b=c"', '"a\\073 Domain=evil.example"', '"a b"', "a,b", "\u00e9"])
def test_a_secret_that_was_never_given_out_so_is_none(value: str) -> None:
    """Attack: a quoted cookie with line ends or attributes in it, which would be given back in a header."""
    assert browser_in(f"mcp_gateway_consent={value}") == ""


@given(st.text())
def test_any_cookies_and_queries_are_read_or_left(text: str) -> None:
    assert isinstance(browser_in(text), str)
    assert isinstance(parameters(text), dict)


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", {}), ("a=1&b=%20", {"a": "1", "b": " "}), ("a=1&a=2", {"a": "1"}), ("&".join(["a=1"] * 21), {})],
)
def test_parameters_are_few_and_the_first_of_a_name_counts(query: str, expected: dict[str, str]) -> None:
    assert parameters(query) == expected


def test_a_proof_is_of_one_browser_and_one_link() -> None:
    proofs = {proof_of("b", "l"), proof_of("c", "l"), proof_of("b", "m"), proof_of("", "b\nl"), proof_of("\ud800", "l")}
    assert len(proofs) == 5
