"""Access is taken and given back, once each."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from mcp_gateway.actors.node.revocation_changes import changed_revocations
from mcp_gateway.config.identity_settings import LOG_OUTS_KEPT_S, MOST_LOG_OUTS, LogOut, Revocations
from mcp_gateway.config.loader import ConfigError
from mcp_gateway.transports.identity.log_outs import LogOuts
from mcp_gateway.transports.ports.principal import Principal

NOBODY, FINGERPRINT = Revocations(), "0123456789abcdef" * 2


@pytest.mark.parametrize("what", [{"subject": "alice"}, {"subject": "team-*"}, {"fingerprint": FINGERPRINT}])
def test_access_is_taken_once_and_given_back(what: dict[str, Any]) -> None:
    taken = changed_revocations(NOBODY, what)
    assert (*taken.subjects, *taken.fingerprints) == tuple(what.values())
    assert changed_revocations(taken, what) == taken
    assert changed_revocations(taken, {**what, "undo": True}) == NOBODY
    assert changed_revocations(NOBODY, {**what, "undo": True}) == NOBODY


@pytest.mark.parametrize("what", [{"subject": ""}, {"subject": 7}, {"fingerprint": "abc"}, {"fingerprint": FINGERPRINT.upper()}])
def test_what_names_nobody_is_refused(what: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        changed_revocations(NOBODY, what)


def test_fingerprints_are_kept_up_to_a_limit() -> None:
    full = Revocations(fingerprints=tuple(f"{number:032x}" for number in range(10_000)))
    with pytest.raises(ConfigError):
        changed_revocations(full, {"fingerprint": FINGERPRINT})
    assert changed_revocations(full, {"fingerprint": f"{7:032x}"}).fingerprints[-1] == f"{7:032x}"


def logged_out(token_id: str, issued_ms: int = 0, issuer: str = "https://id.example") -> LogOut:
    return LogOut(issuer=issuer, subject=f"{token_id} of", issued_ms=issued_ms, token_id=token_id)


def with_log_outs(*log_outs: LogOut) -> Revocations:
    found = NOBODY
    for each in log_outs:
        found = changed_revocations(found, {"log_out": each})
    return found


def test_a_logout_is_told_once() -> None:
    first, second = logged_out("1"), logged_out("2")
    assert with_log_outs(first, second).log_outs == (first, second)
    assert with_log_outs(first, logged_out("1", issuer="https://other.example")).log_outs[0] == first
    with pytest.raises(ConfigError, match="used before"):
        with_log_outs(first, second, attrs.evolve(first, issued_ms=9))


def test_a_logout_is_known_for_longer_than_any_token_counts() -> None:
    kept_ms = int(LOG_OUTS_KEPT_S * 1000)
    first = logged_out("1")
    assert with_log_outs(first, logged_out("2", kept_ms + 600_000)).log_outs[0] == first
    assert first not in with_log_outs(first, logged_out("2", 2 * kept_ms)).log_outs


def test_where_there_are_too_many_logouts_everybody_of_the_issuer_logs_in_again_whose_token_is_as_old() -> None:
    full = Revocations(log_outs=tuple(logged_out(str(number), number) for number in range(MOST_LOG_OUTS)))
    new = logged_out("new", MOST_LOG_OUTS)
    found = changed_revocations(full, {"log_out": new}).log_outs
    assert len(found) == MOST_LOG_OUTS - MOST_LOG_OUTS // 10 + 2
    assert found[0] == LogOut(issuer=new.issuer, issued_ms=MOST_LOG_OUTS // 10 - 1)
    assert found[-1] == new
    before = LogOuts(full.log_outs)
    for number in range(0, MOST_LOG_OUTS, 501):
        shown = Principal(issuer=new.issuer, subject=f"{number} of", issued_ms=number)
        assert before.ended(shown)
        assert LogOuts(found).ended(shown)
