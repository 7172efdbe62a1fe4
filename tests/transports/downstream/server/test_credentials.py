"""What a request shows: the one place for a token, the word of a trusted proxy, tickets of browsers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.downstream.server.credentials import CredentialReader, ShownTicket
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.protocol.mcp.refusals import Refused

READER = CredentialReader(AuthSettings(user_header="x-forwarded-user", groups_header="X-Forwarded-Groups"))


def read(headers: dict[str, str], query: str = "", *, proxy: bool = False, ticket: bool = False) -> object:
    return READER.read(headers, query, is_from_proxy=proxy, takes_ticket=ticket)


def bearer(token: str) -> Credential:
    return Credential(kind=CredentialKind.BEARER, value=token)


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc.def-_~+/==", "abc.def-_~+/=="),
        ("BEARER   abc ", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic YTpi", None),
        ("Negotiate abc", None),
        ("", None),
        ("Bearerabc", None),
    ],
)
def test_the_token_is_that_of_the_scheme_bearer(header: str, token: str | None) -> None:
    """Source: RFC 9110, section 11.1: schemes are case-insensitive; RFC 6750, section 2.1."""
    assert read({"Authorization": header}) == (None if token is None else bearer(token))


@pytest.mark.parametrize(
    "header",
    ["Bearer abc,Bearer def", "Bearer abc def", "Bearer a,b", "Bearer a=b", "Bearer \u00e9", 'Bearer "abc"', "Bearer a\tb"],
)
def test_what_may_be_two_tokens_is_none(header: str) -> None:
    with pytest.raises(Refused) as refused:
        read({"Authorization": header})
    assert (refused.value.status, refused.value.data) == (400, {"error": "invalid_request"})


@pytest.mark.parametrize("query", ["access_token=abc", "a=b&access_token=abc", "access%5Ftoken=abc"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer abc"}])
def test_a_token_in_the_query_is_refused_whatever_else_is_there(query: str, headers: dict[str, str]) -> None:
    """Source: MCP 2025-11-25, basic/authorization, "Token Requirements": tokens MUST NOT be in the query string."""
    with pytest.raises(Refused, match="address"):
        read(headers, query)


def test_a_user_that_a_proxy_names_counts_only_where_that_proxy_is_trusted() -> None:
    headers = {"X-Forwarded-User": "ada ", "X-Forwarded-Groups": "a, b,,c"}
    assert read(headers) is None
    assert read({**headers, "Authorization": "Bearer abc"}) == bearer("abc")
    named = Credential(kind=CredentialKind.PROXY, value="ada", groups=("a", "b", "c"))
    assert read(headers, proxy=True) == named
    assert read({**headers, "Authorization": "Basic of-the-proxy"}, proxy=True) == named
    assert read({"Authorization": "Bearer abc"}, proxy=True) == bearer("abc")
    assert CredentialReader(AuthSettings()).read(headers, "", is_from_proxy=True, takes_ticket=False) is None


def test_a_user_header_that_comes_twice_names_nobody() -> None:
    with pytest.raises(Refused, match="more than one user"):
        read({"X-Forwarded-User": "mallory,ada"}, proxy=True)


def test_a_ticket_counts_where_browsers_come_that_can_send_no_header() -> None:
    assert read({}, "ticket=t") is None
    assert read({}, "vsn=2.0.0&ticket=t", ticket=True) == ShownTicket("t")
    with pytest.raises(Refused, match="not both"):
        read({"Authorization": "Bearer abc"}, "ticket=t", ticket=True)


def test_neither_a_token_nor_a_ticket_is_shown_in_logs() -> None:
    assert "secret" not in repr([read({"Authorization": "Bearer secret"}), read({}, "ticket=secret", ticket=True)])


@given(st.dictionaries(st.sampled_from(["Authorization", "X-Forwarded-User", "X-Forwarded-Groups"]), st.text()), st.text())
def test_anything_is_a_credential_or_a_refusal(headers: dict[str, str], query: str) -> None:
    for proxy in (False, True):
        try:
            read(headers, query, proxy=proxy, ticket=True)
        except Refused as refused:
            assert refused.status == 400
