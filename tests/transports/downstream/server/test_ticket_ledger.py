"""Tickets that nobody has used: each once, in its time, in bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.ticket_ledger import LIFETIME_MS, TicketLedger
from mcp_gateway.transports.ports.principal import Principal
from tests.doubles.known_clients import ADA, BOB


def test_a_ticket_is_used_once() -> None:
    ledger = TicketLedger(1.0)
    assert ledger.add("a", ADA, 0)
    assert ledger.use("a", 1) == ADA
    assert ledger.use("a", 1) is None
    assert ledger.use("unknown", 1) is None


def test_a_ticket_ends_with_its_lifetime() -> None:
    ledger = TicketLedger(1.0)
    ledger.add("a", ADA, 0)
    ledger.add("b", ADA, 1)
    assert ledger.use("a", LIFETIME_MS) is None
    assert ledger.use("b", LIFETIME_MS) == ADA


def test_nobody_holds_more_than_its_share_and_expired_ones_make_room() -> None:
    ledger = TicketLedger(0.5, most=16)
    assert [ledger.add(f"a{number}", ADA, 0) for number in range(9)] == [True] * 8 + [False]
    assert ledger.add("b", BOB, 0)
    assert ledger.add("later", ADA, LIFETIME_MS)
    assert len(ledger) == 1


def test_whoever_watches_a_ticket_is_called_off_once_however_it_ends() -> None:
    ledger = TicketLedger(1.0)
    called_off: list[str] = []
    for key in ("used", "dropped", "expired"):
        ledger.add(key, ADA, 0)
        ledger.when_dropped(key, lambda key=key: called_off.append(key))  # type: ignore[misc]
    ledger.use("used", 1)
    ledger.drop("dropped")
    ledger.use("used", LIFETIME_MS)
    assert called_off == ["used", "dropped", "expired"]


steps = st.lists(
    st.tuples(st.sampled_from(["add", "use", "drop"]), st.integers(0, 9), st.sampled_from([ADA, BOB]), st.integers(0, 20_000))
)


@given(steps)
def test_it_stays_consistent(taken: list[tuple[str, int, Principal, int]]) -> None:
    ledger, now_ms, used = TicketLedger(0.5, most=8), 0, 0
    for number, (step, key, principal, passed_ms) in enumerate(taken):
        now_ms += passed_ms
        if step == "add":
            ledger.add(f"{key}.{number}", principal, now_ms)
        elif step == "use":
            used += ledger.use(f"{key}.{max(number - 1, 0)}", now_ms) is not None
        else:
            ledger.drop(f"{key}.{max(number - 1, 0)}")
        ledger.assert_consistent()
