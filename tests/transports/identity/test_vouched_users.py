"""Users by a proxy's header and by a certificate: believed where the settings say so, and only there."""

from __future__ import annotations

import attrs
import pytest

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.identity.rejection import CredentialRejected
from mcp_gateway.transports.identity.vouched_users import vouched_principal
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind

BOTH = AuthSettings(user_header="X-User", groups_header="X-Groups", client_certificates=True)
PROXY, CERTIFICATE = CredentialKind.PROXY, CredentialKind.CERTIFICATE
OTHERS = [(PROXY, AuthSettings(client_certificates=True)), (CERTIFICATE, AuthSettings(user_header="X-User"))]


def shown(kind: CredentialKind, name: str, *groups: str) -> Credential:
    return Credential(kind=kind, value=name, groups=groups)


def test_a_proxy_names_the_user_and_its_groups() -> None:
    found = vouched_principal(shown(PROXY, "alice", "staff"), BOTH)
    assert (found.key, found.groups, found.scopes) == ("proxy alice", {"staff"}, frozenset())


def test_a_certificate_names_the_user_and_no_groups() -> None:
    found = vouched_principal(shown(CERTIFICATE, "CN=alice,O=Example", "staff"), BOTH)
    assert (found.key, found.groups) == ("certificate CN=alice,O=Example", frozenset())


def test_groups_are_believed_only_where_their_header_is_named() -> None:
    settings = AuthSettings(user_header="X-User")
    assert vouched_principal(shown(PROXY, "alice", "staff"), settings).groups == frozenset()


@pytest.mark.parametrize(("kind", "settings"), OTHERS)
def test_nobody_is_believed_in_a_way_that_is_not_configured(kind: CredentialKind, settings: AuthSettings) -> None:
    with pytest.raises(CredentialRejected):
        vouched_principal(shown(kind, "alice"), settings)


@pytest.mark.parametrize("name", ["", "a" * 1_001, "alice\n", "a\x00", "\ud800"])
def test_what_is_no_name_is_nobody(name: str) -> None:
    with pytest.raises(CredentialRejected):
        vouched_principal(shown(PROXY, name), BOTH)


def test_the_longest_name_is_taken() -> None:
    assert vouched_principal(shown(PROXY, "a" * 1_000), BOTH).subject == "a" * 1_000


def test_who_is_named_an_operator_has_that_scope_and_nobody_else() -> None:
    named = attrs.evolve(BOTH, operators=("ops-*", "certificate CN=ann"))
    for kind, name, is_one in (
        (PROXY, "ops-1", True),
        (CERTIFICATE, "CN=ann", True),
        (PROXY, "CN=ann", False),
        (PROXY, "dev-1", False),
    ):
        scopes = frozenset({"mcp-gateway:operate"}) if is_one else frozenset()
        assert vouched_principal(shown(kind, name), named).scopes == scopes
    assert vouched_principal(shown(PROXY, "ops-1"), attrs.evolve(named, operator_scope="")).scopes == frozenset()
