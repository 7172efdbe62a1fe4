"""The tokens that clients have come with: each found by whoever came with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.subject_tokens import NotingAuthenticator, SubjectTokens


def principal(subject: str, fingerprint: str, expires_ms: int = 1_000) -> Principal:
    return Principal(issuer="iss", subject=subject, fingerprint=fingerprint, expires_ms=expires_ms)


def bearer(value: str) -> Credential:
    return Credential(kind=CredentialKind.BEARER, value=value)


def wanted(most_kept: int = 10) -> SubjectTokens:
    subjects = SubjectTokens(most_kept)
    subjects.is_wanted = True
    return subjects


def test_a_token_is_found_by_its_own_user_and_credential_until_it_is_over() -> None:
    subjects = wanted()
    subjects.note(principal("ann", "f-1"), bearer("t-1"))
    subjects.note(principal("ann", "f-2"), bearer("t-2"))
    assert subjects.of(Asker("iss ann", "f-1"), 999) == "t-1"
    assert subjects.of(Asker("iss ann", "f-2"), 999) == "t-2"
    assert subjects.of(Asker("iss ann", "f-1"), 1_000) is None
    for other in (Asker("iss bob", "f-1"), Asker("iss ann", "f-3"), Asker("iss ann"), Asker()):
        assert subjects.of(other, 0) is None


def test_nothing_is_kept_that_nobody_wants_or_that_is_no_token() -> None:
    subjects = SubjectTokens()
    subjects.note(principal("ann", "f-1"), bearer("t-1"))
    subjects.is_wanted = True
    subjects.note(principal("ann", "f-2"), Credential(kind=CredentialKind.PROXY, value="ann"))
    assert [subjects.of(Asker("iss ann", fingerprint), 0) for fingerprint in ("f-1", "f-2")] == [None, None]


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    subjects = wanted(most_kept=2)
    for fingerprint in ("f-1", "f-2", "f-1", "f-3"):
        subjects.note(principal("ann", fingerprint), bearer(fingerprint))
    found = [subjects.of(Asker("iss ann", fingerprint), 0) for fingerprint in ("f-1", "f-2", "f-3")]
    assert found == ["f-1", None, "f-3"]


class Knows:
    def known(self, credential: Credential) -> Principal | None:
        return principal("ann", "f-1") if credential.value == "t-1" else None

    async def authenticate(self, credential: Credential) -> Principal:
        return principal("bob", "f-2")

    def on_end(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        return callback


def test_whoever_comes_in_is_noted_however_the_client_is_known() -> None:
    subjects = wanted()
    noting = NotingAuthenticator(Knows(), subjects)
    assert noting.known(bearer("t-1")) == principal("ann", "f-1")
    assert noting.known(bearer("t-2")) is None
    assert asyncio.run(noting.authenticate(bearer("t-2"))) == principal("bob", "f-2")
    assert subjects.of(Asker("iss ann", "f-1"), 0) == "t-1"
    assert subjects.of(Asker("iss bob", "f-2"), 0) == "t-2"
