"""The limiter in front of every transport: whose request is counted under which key, and what is told of refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.transports.downstream.server import request_limiter
from mcp_gateway.transports.downstream.server.request_limiter import EVENT_BURST, EVENTS_PER_S, RequestLimiter
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.running_cell import cell_settings


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        self.of_day_s = 20_000 * 86_400 + 43_200.0
        monkeypatch.setattr(request_limiter.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(request_limiter.time, "time", lambda: self.of_day_s)


def limiter(published: list[tuple[str, Mapping[str, Any]]], cells: int = 1, **limits: Any) -> RequestLimiter:
    settings = cell_settings(limits=limits, gateway={"cells": cells})
    return RequestLimiter(settings, lambda topic, payload: published.append((topic, payload)))


def passes(limits: RequestLimiter, **keys: str) -> bool:
    try:
        limits.admit(keys, b"7")
    except Refused as refused:
        assert (refused.reason, refused.code, refused.status, refused.request_id) == ("rate_limited", 4290, 429, b"7")
        return False
    return True


def test_without_a_limit_everything_passes() -> None:
    limits = limiter([])
    assert not limits.is_on
    assert all(passes(limits, ip="1") for _ in range(10_000))


def test_a_client_at_its_limit_passes_and_past_it_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=4, burst=3)
    assert [passes(limits, ip="1") for _ in range(4)] == [True, True, True, False]
    with pytest.raises(Refused) as caught:
        limits.admit({"ip": "1"})
    assert caught.value.retry_after_s == 0.25
    clock.now_s += 0.25
    assert passes(limits, ip="1")


def test_without_a_burst_one_second_of_requests_may_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    limits = limiter([], requests_per_second=5)
    assert [passes(limits, ip="1") for _ in range(6)] == [True] * 5 + [False]


def test_the_first_source_that_the_client_has_is_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    limits = limiter([], requests_per_second=1, burst=1, key="user|session|ip")
    assert passes(limits, principal="ada", session="s1", ip="1")
    assert not passes(limits, principal="ada", session="s2", ip="2")
    assert passes(limits, session="s1", ip="1")
    assert passes(limits, user="", ip="1")
    assert not passes(limits, ip="1")


def test_a_value_of_one_source_is_no_key_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    limits = limiter([], requests_per_second=1, burst=1)
    assert passes(limits, principal="10.0.0.1")
    assert passes(limits, ip="10.0.0.1")


def test_cells_share_the_limit_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], cells=2, requests_per_second=4, burst=4)
    assert [passes(limits, ip="1") for _ in range(3)] == [True, True, False]
    clock.now_s += 0.5
    assert passes(limits, ip="1")


def test_attenuation_is_told_once_a_second_and_every_refusal_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    published: list[tuple[str, Mapping[str, Any]]] = []
    limits = limiter(published, requests_per_second=1, burst=1)
    before = metrics.rate_limited_total.labels("ip")._value.get()
    refused = [passes(limits, ip="1") for _ in range(5)].count(False)
    assert published == [("vsm.variety.attenuated", {"refused": {"ip": 1}})]
    clock.now_s += 1.0
    assert passes(limits, ip="1")
    assert not passes(limits, ip="1")
    assert published[1:] == [("vsm.variety.attenuated", {"refused": {"ip": 4}})]
    assert metrics.rate_limited_total.labels("ip")._value.get() - before == refused + 1


def test_what_a_client_says_of_itself_neither_passes_the_limit_nor_uses_up_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    limits = limiter([], requests_per_second=1, burst=3)
    assert [passes(limits, user=f"u{number}", ip="1") for number in range(5)] == [True] * 3 + [False] * 2
    assert passes(limits, user="u0", ip="2")


@pytest.mark.parametrize("source", ["session", "header:X-Tenant"])
def test_clients_of_one_address_that_tell_themselves_apart_have_four_times_the_limit_together(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=2, burst=2, key=f"user|{source}|ip")
    assert [passes(limits, **{source: "a", "ip": "1"}) for _ in range(3)] == [True, True, False], "its own limit"
    assert [passes(limits, **{source: f"b{number}", "ip": "1"}) for number in range(7)] == [True] * 6 + [False]
    assert passes(limits, **{source: "c", "ip": "2"})
    assert passes(limits, ip="1"), "who opens its session has a limit of its own"
    clock.now_s += 0.125
    assert [passes(limits, **{source: f"d{number}", "ip": "1"}) for number in range(2)] == [True, False]
    assert [passes(limits, principal="ada", **{source: f"e{number}", "ip": "1"}) for number in range(2)] == [True, True]


@pytest.mark.parametrize("cells", [1, 4])
def test_an_address_publishes_so_many_events_and_no_more_and_others_go_on(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], cells)
    for _ in range(round(EVENT_BURST / cells)):
        limits.admit_event("1")
    with pytest.raises(Refused) as caught:
        limits.admit_event("1")
    assert (caught.value.reason, caught.value.status) == ("rate_limited", 429)
    assert caught.value.retry_after_s == pytest.approx(cells / EVENTS_PER_S, abs=0.001)
    limits.admit_event("2")
    clock.now_s += 1.0
    for _ in range(round(EVENTS_PER_S / cells)):
        limits.admit_event("1")
    with pytest.raises(Refused):
        limits.admit_event("1")


# ---- limits that nodes share


def test_a_node_gives_out_the_part_that_it_holds_and_says_what_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=10, burst=10, key="user|session|ip")
    assert [passes(limits, ip="0") for _ in range(11)] == [True] * 10 + [False], "all of it before it shares"
    limits.hold(0.5, {})
    assert [passes(limits, ip="1") for _ in range(6)] == [True] * 5 + [False]
    clock.now_s += 2.0
    (name, wanted) = limits.take_asked().popitem()
    assert wanted == pytest.approx(6 / 2 / 10)
    assert limits.take_asked() == {}
    clock.now_s += 100.0
    limits.hold(0.5, {name: 0.2})
    assert [passes(limits, ip="1") for _ in range(3)] == [True, True, False]
    assert [passes(limits, ip="2") for _ in range(6)] == [True] * 5 + [False]


def test_a_client_that_is_told_apart_by_what_it_can_change_shares_the_limit_of_its_address_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=10, burst=10)
    limits.hold(0.1, {})
    assert [passes(limits, session=f"s{number}", ip="1") for number in range(5)] == [True] * 4 + [False]
    clock.now_s += 1.0
    asked = limits.take_asked()
    assert sorted(asked.values()) == pytest.approx([0.1] * 5 + [5 / 40])
    assert not any("s1" in name for name in asked), "names that do not say who it is"


def test_of_many_clients_those_who_ask_most_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=10)
    limits.hold(1.0, {})
    for number in range(300):
        passes(limits, ip=f"{number}")
    passes(limits, ip="7")
    clock.now_s += 1.0
    asked = limits.take_asked()
    assert (len(asked), max(asked.values())) == (200, 0.2)


def test_the_day_of_a_principal_is_the_same_wherever_it_comes_from_and_whatever_it_is_told_apart_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_day=2, key="session|ip")
    assert limits.is_on
    assert [passes(limits, principal="ada", session=each, ip=each) for each in "123"] == [True, True, False]
    assert passes(limits, principal="bob", session="1", ip="1")
    assert [passes(limits, user=each, session=each, ip="1") for each in "123"] == [True, True, False]
    clock.of_day_s += 43_200
    assert passes(limits, principal="ada", ip="1")


def test_who_has_used_its_day_is_told_when_the_next_one_begins_and_it_is_counted_and_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Clock(monkeypatch)
    published: list[tuple[str, Mapping[str, Any]]] = []
    limits = limiter(published, requests_per_day=1)
    refused = metrics.bounds_reached_total.labels("requests_per_day")
    before = refused._value.get()
    limits.admit({"ip": "1"})
    with pytest.raises(Refused) as caught:
        limits.admit({"ip": "1"}, b"7")
    assert (caught.value.reason, caught.value.request_id, caught.value.retry_after_s) == ("rate_limited", b"7", 43_200.0)
    assert "day" in caught.value.text
    assert published == [("vsm.variety.attenuated", {"refused": {"ip": 1}})]
    assert refused._value.get() == before + 1


def test_what_is_refused_for_its_rate_and_a_ping_cost_nothing_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    limits = limiter([], requests_per_second=1, burst=2, requests_per_day=2)
    limits.admit({"ip": "1"}, is_ping=True)
    assert [passes(limits, ip="1") for _ in range(3)] == [True, False, False]
    clock.now_s += 10
    assert [passes(limits, ip="1") for _ in range(2)] == [True, False]
    with pytest.raises(Refused):
        limits.admit({"ip": "1"}, is_ping=True)  # a ping has a rate as everything else


@pytest.mark.parametrize(("state_dir", "each"), [("", 2), ("kept", 3)])
def test_cells_that_cannot_count_together_give_out_a_part_each(
    state_dir: str, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    gateway = {"cells": 2, "state_dir": state_dir and str(tmp_path / state_dir)}
    limits = RequestLimiter(cell_settings(limits={"requests_per_day": 3}, gateway=gateway), lambda topic, payload: None)
    assert sum(passes(limits, ip="1") for _ in range(9)) == each
