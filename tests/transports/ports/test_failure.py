"""Fates of exchanges without an answer, and what follows from each."""

from __future__ import annotations

import pickle

import pytest

from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS

WHAT_FOLLOWS = [
    # fate, whether it may have run, counts against the server, leaves open whether it ran, shows how the server is
    (Fate.UNREACHABLE, False, True, False, True),
    (Fate.TURNED_AWAY, False, False, False, False),
    (Fate.SESSION_LOST, False, False, False, False),
    (Fate.CUT, True, True, True, True),
    (Fate.CELL_LOST, True, False, True, False),
    (Fate.TIMED_OUT, True, True, False, False),
    (Fate.STARTING, False, False, False, False),
    (Fate.BROKEN, True, True, False, True),
    (Fate.REFUSED, True, False, False, True),
    (Fate.UNSUPPORTED, True, False, False, True),
    (Fate.UNAUTHORIZED, False, False, False, False),
    (Fate.ENDED, True, False, False, False),
]


@pytest.mark.parametrize(("fate", "was_sent", "is_fault", "is_cut", "is_verdict"), WHAT_FOLLOWS, ids=lambda each: str(each))
def test_what_follows_from_a_fate(fate: Fate, was_sent: bool, is_fault: bool, is_cut: bool, is_verdict: bool) -> None:
    """Only what was never sent may be tried elsewhere; what nobody knows the end of is said to be so."""
    assert (fate.was_sent, fate.is_fault, fate.is_cut, fate.is_verdict) == (was_sent, is_fault, is_cut, is_verdict)


def test_every_fate_is_in_the_table() -> None:
    assert [row[0] for row in WHAT_FOLLOWS] == list(Fate)


@pytest.mark.parametrize("fate", Fate)
def test_the_usual_reason_of_a_fate_is_one_that_clients_are_told(fate: Fate) -> None:
    assert Failure(fate, "why").reason in REFUSALS
    assert Failure(fate, "why", reason="draining").reason == "draining"


def test_a_failure_travels_whole_between_exceptions_and_processes() -> None:
    failure = Failure(Fate.REFUSED, "why", reason="unknown_method", error=b'{"code":1}', retry_after_s=2.0)
    error = UpstreamError.of(pickle.loads(pickle.dumps(failure)))
    assert (error.failure, str(error), error.fate) == (failure, "why", Fate.REFUSED)
    assert UpstreamError(Fate.REFUSED, "why", reason="unknown_method", error=b'{"code":1}').failure.error == failure.error
