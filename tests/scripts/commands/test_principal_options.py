"""Who somebody is, as options say it."""

from __future__ import annotations

import argparse

import pytest

from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.commands import principal_options
from mcp_gateway.scripts.commands.attaching import Refused
from mcp_gateway.scripts.commands.principal_options import add_principal_options, doubts, principal_of
from mcp_gateway.transports.identity.api_keys import API_KEY_ISSUER
from mcp_gateway.transports.identity.vouched_users import CERTIFICATE_ISSUER, PROXY_ISSUER
from tests.doubles.running_cell import cell_settings

KEY = {"name": "ci", "hash": f"sha256:{'0' * 64}", "groups": ["robots"], "scopes": ["read"]}
SETTINGS = cell_settings(auth={"api_keys": [KEY]})


def said(*words: str, settings: Settings = SETTINGS) -> tuple[object, ...] | None:
    parser = argparse.ArgumentParser()
    add_principal_options(parser, "nobody")
    principal = principal_of(parser.parse_args(words), settings)
    return principal and (principal.issuer, principal.subject, set(principal.groups), set(principal.scopes))


def test_vouchers_are_called_as_principals_call_them() -> None:
    """Written down again, since reading the issuers would load what verifies tokens."""
    assert principal_options.VOUCHERS == (API_KEY_ISSUER, PROXY_ISSUER, CERTIFICATE_ISSUER)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], None),
        (["--as", "ann", "--group", "dev", "--scope", "s"], ("", "ann", {"dev"}, {"s"})),
        (["--as", "https://id.example ann"], ("https://id.example", "ann", set(), set())),
        (["--as", "Ann Smith"], ("", "Ann Smith", set(), set())),
        (["--as", "api-key ci"], ("api-key", "ci", {"robots"}, {"read"})),
        (["--as", "ci", "--issuer", "api-key", "--group", "more"], ("api-key", "ci", {"robots", "more"}, {"read"})),
        (["--as", "ci"], ("", "ci", set(), set())),
        (["--as", "api-key nobody"], ("api-key", "nobody", set(), set())),
    ],
)
def test_a_name_an_issuer_and_what_a_configured_key_has(words: list[str], found: tuple[object, ...] | None) -> None:
    assert said(*words) == found


def test_without_auth_a_name_is_a_name() -> None:
    assert said("--as", "api-key ci", settings=Settings.demo()) == ("api-key", "ci", set(), set())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--as", "api-key cj"], "no API key 'cj' is configured; there are ci"),
        (["--as", "https://id.exmaple ann"], "no issuer 'https://id.exmaple' is configured; there are https://id.example"),
        (["--as", "ci"], "'ci' is taken for a person of any issuer; the API key of that name is 'api-key ci'"),
        (["--as", "api-key ci"], None),
        (["--as", "https://id.example ann"], None),
        (["--as", "ann"], None),
        (["--as", "proxy ann"], None),
        ([], None),
    ],
)
def test_somebody_who_cannot_be_is_told_of(words: list[str], expected: str | None) -> None:
    issuer = {"issuer": "https://id.example", "audience": ["https://gateway.example"]}
    settings = cell_settings(auth={"api_keys": [KEY], "issuers": [issuer]})
    parser = argparse.ArgumentParser()
    add_principal_options(parser, "nobody")
    assert list(doubts(principal_of(parser.parse_args(words), settings), settings)) == ([expected] if expected else [])


def test_without_auth_nobody_is_anybody_in_particular() -> None:
    parser = argparse.ArgumentParser()
    add_principal_options(parser, "nobody")
    for words, is_told in ((["--as", "api-key ci"], True), (["--as", "ann"], False)):
        assert bool(list(doubts(principal_of(parser.parse_args(words), Settings.demo()), Settings.demo()))) is is_told


@pytest.mark.parametrize("option", ["--issuer", "--group", "--scope", "--client"])
def test_what_is_said_of_nobody_is_refused(option: str) -> None:
    with pytest.raises(Refused, match="name somebody"):
        said(option, "dev")
