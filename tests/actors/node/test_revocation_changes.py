"""Access is taken and given back, once each."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.actors.node.revocation_changes import changed_revocations
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.loader import ConfigError

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
