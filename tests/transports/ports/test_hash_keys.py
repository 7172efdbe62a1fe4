"""What a client is told apart by, as far as it stands in the query of its request."""

from __future__ import annotations

import pytest

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.hash_keys import (
    PRINCIPAL,
    HashKeys,
    holder,
    holder_of,
    keys_of_owner,
    owner_of,
    principal_of,
    query_value,
)
from mcp_gateway.transports.ports.principal import Principal


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("backend=files", "files"),
        ("backend=files&token=" + "x" * 60_000, "files"),
        ("token=" + "x" * 60_000 + "&backend=files", "files"),
        ("&".join(f"p{number}=1" for number in range(500)) + "&backend=files", "files"),
        ("backend=a%20b+c", "a b c"),
        ("b%61ckend=files", "files"),
        ("backend=&backend=second&backend=third", "second"),
        ("backend", None),
        ("backend=", None),
        ("Backend=files", None),
        ("xbackend=files&=files&&", None),
        ("backend=%zz%ff", "%zz\ufffd"),
        ("", None),
    ],
)
def test_a_value_is_found_in_any_query(query: str, value: str | None) -> None:
    assert query_value(query, "backend") == value


def test_a_user_in_the_query_is_cut_to_what_a_session_id_can_carry() -> None:
    assert HashKeys(Settings()).of_connection({}, "user_id=" + "u" * 1_000, "::1") == {"ip": "::1", "user": "u" * 1_000}
    assert HashKeys(Settings()).of_connection({}, "user_id=" + "u" * 1_001, "::1") == {"ip": "::1", "user": "u" * 1_000}


def test_a_client_holds_its_share_by_its_address_whatever_it_says_of_itself() -> None:
    assert holder_of({"ip": "::1", "user": "ada", "session": "s"}) == "::1"
    assert holder_of({"ip": "::1", PRINCIPAL: "::2"}) == "principal:::2"
    ada = Principal(issuer="https://id.example", subject="ada")
    assert (holder(ada, "::1"), holder(None, "::1")) == ("principal:https://id.example ada", "::1")
    assert [principal_of({"user": "ada", "ip": "::1"}), principal_of({PRINCIPAL: "ada"})] == ["", "ada"]


def test_no_client_gives_itself_a_principal() -> None:
    keys = HashKeys(Settings()).of_connection({"Principal": "ada"}, "principal=ada&user_id=ada", "::1")
    assert PRINCIPAL not in keys


def test_a_claim_owns_nothing_of_a_principal() -> None:
    assert owner_of({PRINCIPAL: "ada", "user": "bob"}) == owner_of({PRINCIPAL: "ada"})
    owners = [{PRINCIPAL: "ada"}, {"user": "ada"}, {"user": "principal:ada"}, {"user": "user:principal:ada"}, {}]
    assert len({owner_of(keys) for keys in owners[:3] + owners[4:]}) == 4
    assert owner_of(owners[0]) not in [owner_of(keys) for keys in owners[1:]]


def test_an_owner_is_a_principal_again_and_nobody_can_name_one() -> None:
    assert keys_of_owner(owner_of({PRINCIPAL: "iss ada", "ip": "::1"})) == {PRINCIPAL: "iss ada"}
    for keys in ({}, {"user": "ada"}, {"user": "principal:iss ada"}, {"user": "user:principal:iss ada"}):
        assert keys_of_owner(owner_of(keys)) == {}
