"""The authorization code flow: what is asked for, and what of the answer is believed."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs
import msgspec
import pytest

from mcp_gateway.transports.upstream.credentials.authorization_flow import (
    EXCHANGE,
    ClientIdentity,
    Flow,
    FlowRefused,
    Grant,
    KnownClient,
    Terms,
    auth_method,
    authenticated,
    authorization_url,
    challenge_of,
    check_takes_flow,
    chosen_issuer,
    client_document,
    code_form,
    code_in,
    exchange_form,
    identity_without_registration,
    read_registration,
    refresh_form,
    registration_request,
    wanted_scopes,
    with_offline_access,
)
from mcp_gateway.transports.upstream.credentials.discovery import AuthorizationServer, MetadataRefused
from mcp_gateway.transports.upstream.credentials.tokens import Tokens

ISSUER = "https://id.example"
SERVER = AuthorizationServer(
    issuer=ISSUER, authorization_endpoint=f"{ISSUER}/auth?tenant=7&state=x", token_endpoint=f"{ISSUER}/token"
)
CALLBACK = "https://mcp.example/mcp/oauth/callback"
TERMS = Terms(ISSUER, f"{ISSUER}/token", "https://files.example/mcp", ClientIdentity("gw", "s3cret", "client_secret_basic"))
FLOW = Flow("files", "iss ann", b"", "v" * 43, CALLBACK, ("read", "write"), False, TERMS)


def test_the_browser_is_sent_with_pkce_resource_and_a_state_of_its_own() -> None:
    """Source: OAuth 2.1, section 4.1.1; RFC 8707, section 2."""
    check_takes_flow(SERVER, allow_http=False)
    url = authorization_url(SERVER, FLOW, "st-1")
    assert {name: values for name, values in parse_qs(urlsplit(url).query).items()} == {
        "tenant": ["7"],
        "response_type": ["code"],
        "client_id": ["gw"],
        "redirect_uri": [CALLBACK],
        "state": ["st-1"],
        "code_challenge": [challenge_of("v" * 43)],
        "code_challenge_method": ["S256"],
        "resource": ["https://files.example/mcp"],
        "scope": ["read write"],
    }


def test_the_challenge_is_that_of_the_rfc() -> None:
    """Source: RFC 7636, appendix B."""
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    "members",
    [
        {"authorization_endpoint": ""},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://id.example/auth"},
        {"authorization_endpoint": "https:///auth"},
        {"has_pkce": False},
    ],
)
def test_a_server_that_cannot_take_the_flow_safely_gets_no_browser(members: dict[str, Any]) -> None:
    with pytest.raises(FlowRefused):
        check_takes_flow(attrs.evolve(SERVER, **members), allow_http=False)


def test_a_code_is_taken_from_the_server_that_was_asked() -> None:
    assert code_in({"code": "c", "state": "s"}, FLOW) == "c"
    assert code_in({"code": "c", "iss": ISSUER}, msgspec.structs.replace(FLOW, names_issuer=True)) == "c"


@pytest.mark.parametrize(
    ("answer", "names_issuer"),
    [
        ({"code": "c"}, True),
        ({"code": "c", "iss": "https://evil.example"}, True),
        ({"code": "c", "iss": "https://evil.example"}, False),
        ({"code": "c", "iss": f"{ISSUER}/"}, False),
        ({"code": "c", "iss": "https://ID.example"}, False),
        ({"code": "c", "iss": ""}, False),
        ({"code": "c", "error": "access_denied"}, False),
        ({"error": "server_error"}, False),
        ({}, False),
        ({"code": "c" * 8_193}, False),
    ],
)
def test_what_comes_from_another_server_or_holds_no_code_ends_the_flow(answer: dict[str, str], names_issuer: bool) -> None:
    """Source: RFC 9207, section 2.4."""
    with pytest.raises(FlowRefused):
        code_in(answer, msgspec.structs.replace(FLOW, names_issuer=names_issuer))


@pytest.mark.parametrize(
    ("configured", "challenged", "granted", "offered", "expected"),
    [
        ((), ("read",), (), ("all",), ("read",)),
        ((), (), (), ("a", "b"), ("a", "b")),
        ((), (), (), (), ()),
        (("own",), (), (), ("all",), ("own",)),
        ((), ("write",), ("read",), ("all",), ("read", "write")),
        (("own",), ("write",), ("read", "own"), (), ("own", "read", "write")),
    ],
)
def test_scopes_are_asked_for_as_the_specification_says(
    configured: tuple[str, ...],
    challenged: tuple[str, ...],
    granted: tuple[str, ...],
    offered: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    assert wanted_scopes(configured, challenged, granted, offered) == expected


def test_a_refresh_token_is_asked_for_only_where_there_can_be_one() -> None:
    offers = attrs.evolve(SERVER, scopes=("offline_access",))
    assert with_offline_access(("read",), offers) == ("read", "offline_access")
    assert with_offline_access(("offline_access",), offers) == ("offline_access",)
    assert with_offline_access(("read",), SERVER) == ("read",)


def test_every_token_request_names_the_resource() -> None:
    grant = Grant(Tokens("at", "rt", (), 0), TERMS)
    for form in (code_form(FLOW, "c"), refresh_form(grant), exchange_form("st", TERMS.resource, ("a",))):
        assert form["resource"] == "https://files.example/mcp"
    assert code_form(FLOW, "c")["code_verifier"] == "v" * 43
    assert exchange_form("st", "r", ())["grant_type"] == EXCHANGE


def test_the_gateway_says_who_it_is_in_one_way() -> None:
    """Source: RFC 6749, section 2.3.1: both parts are encoded before they are joined."""
    form, headers = authenticated({"a": "b"}, ClientIdentity("g:w", "s%t", "client_secret_basic"))
    assert form == {"a": "b"}
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"g%3Aw:s%25t"
    assert authenticated({}, ClientIdentity("gw", "s", "client_secret_post")) == ({"client_id": "gw", "client_secret": "s"}, {})
    assert authenticated({}, ClientIdentity("gw")) == ({"client_id": "gw"}, {})


@pytest.mark.parametrize(
    ("offered", "has_secret", "expected"),
    [
        ((), True, "client_secret_basic"),
        (("client_secret_post", "client_secret_basic"), True, "client_secret_basic"),
        (("client_secret_post",), True, "client_secret_post"),
        (("private_key_jwt",), True, "client_secret_basic"),
        (("client_secret_basic",), False, "none"),
    ],
)
def test_the_way_is_one_that_the_server_offers(offered: tuple[str, ...], has_secret: bool, expected: str) -> None:
    assert auth_method(offered, has_secret=has_secret) == expected


def test_what_is_configured_comes_before_the_document_and_that_before_registration() -> None:
    """Source: MCP 2025-11-25, basic/authorization, "Client Registration Approaches"."""
    url = "https://mcp.example/mcp/oauth/client.json"
    takes = attrs.evolve(SERVER, takes_metadata_url=True)
    assert identity_without_registration(takes, KnownClient("own", "s"), url) == ClientIdentity("own", "s", "client_secret_basic")
    assert identity_without_registration(takes, None, url) == ClientIdentity(url)
    assert identity_without_registration(takes, None, "") is None
    assert identity_without_registration(SERVER, None, url) is None
    assert client_document(url, CALLBACK)["client_id"] == url


def test_a_registration_is_read_and_a_refused_one_ends_the_flow() -> None:
    body = msgspec.json.encode({"client_id": "new", "client_secret": "s", "token_endpoint_auth_method": "client_secret_post"})
    assert read_registration(201, body, SERVER) == ClientIdentity("new", "s", "client_secret_post")
    assert read_registration(201, b'{"client_id":"new"}', SERVER) == ClientIdentity("new")
    for status, refused in ((400, body), (201, b"{}"), (201, b'{"client_id":7}'), (201, b"<html>")):
        with pytest.raises(FlowRefused):
            read_registration(status, refused, SERVER)


def test_a_secret_is_registered_only_where_one_is_needed() -> None:
    offers = attrs.evolve(SERVER, auth_methods=("client_secret_basic", "none"))
    assert registration_request(CALLBACK, offers)["token_endpoint_auth_method"] == "none"
    assert registration_request(CALLBACK, SERVER)["token_endpoint_auth_method"] == "client_secret_basic"
    assert registration_request("http://127.0.0.1:4000/cb", SERVER)["application_type"] == "native"


def test_the_issuer_that_an_operator_believes_is_the_only_one() -> None:
    assert chosen_issuer("", ("https://a", "https://b")) == "https://a"
    assert chosen_issuer("https://b", ("https://a", "https://b")) == "https://b"
    with pytest.raises(MetadataRefused):
        chosen_issuer("https://c", ("https://a", "https://b"))


def test_no_secret_is_shown_by_what_holds_it() -> None:
    assert "s3cret" not in f"{TERMS!r} {FLOW!r} {KnownClient('a', 's3cret')!r}"
