"""Health rules: verdicts need several results in a row, and the whole is as well as what it needs most."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.health.health_rules import (
    HISTORY_LENGTH,
    Change,
    ComponentHealth,
    HealthRecord,
    RiseFall,
    Status,
    StatusChanged,
    SteadyVerdict,
    overall,
)

HEALTHY, DEGRADED, UNHEALTHY = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY


def verdicts(results, **limits):
    """One letter per result ("+" good, "-" bad) gives one letter per verdict change ("U", "D", ".")."""
    rule = RiseFall(**limits)
    letters = {None: ".", Change.UP: "U", Change.DOWN: "D"}
    return "".join(letters[rule.observe(result == "+")] for result in results)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("++++", "...."),
        ("---", "..D"),
        ("--+--+", "......"),
        ("---++", "..D.U"),
        ("---+-+-++", "..D.....U"),
        ("------", "..D..."),
        ("---++---", "..D.U..D"),
    ],
)
def test_three_failures_in_a_row_are_down_and_two_successes_are_up(results, expected):
    """Source: HAProxy, defaults of `fall` and `rise`."""
    assert verdicts(results) == expected


def test_counts_can_be_chosen():
    assert verdicts("-+-+", rise=1, fall=1) == "DUDU"
    assert verdicts("+++", rise=3, is_up=False) == "..U"
    with pytest.raises(ValueError, match="at least 1"):
        RiseFall(rise=0)


@settings(max_examples=200, deadline=None)
@given(results=st.lists(st.booleans(), max_size=40), rise=st.integers(1, 4), fall=st.integers(1, 4))
def test_a_verdict_turns_exactly_after_enough_results_in_a_row_against_it(results, rise, fall):
    rule, is_up, run = RiseFall(rise, fall), True, 0
    for result in results:
        run = run + 1 if result != is_up else 0
        change = rule.observe(result)
        if run == (fall if is_up else rise):
            is_up, run = result, 0
            assert change is (Change.UP if result else Change.DOWN)
        else:
            assert change is None
        assert rule.is_up is is_up


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        ({}, HEALTHY),
        ({"router": HEALTHY, "files": HEALTHY}, HEALTHY),
        ({"router": HEALTHY, "files": UNHEALTHY}, DEGRADED),
        ({"router": HEALTHY, "files": DEGRADED}, DEGRADED),
        ({"router": DEGRADED, "files": HEALTHY}, DEGRADED),
        ({"router": UNHEALTHY, "files": HEALTHY}, UNHEALTHY),
        ({"files": HEALTHY}, HEALTHY),
    ],
)
def test_the_whole_is_unhealthy_only_with_a_critical_component(components, expected):
    assert overall(components, {"router", "pool"}) is expected


def test_gauge_is_what_the_metric_shows():
    assert [status.gauge for status in (HEALTHY, DEGRADED, UNHEALTHY)] == [2, 1, 0]


def test_a_component_that_comes_up_well_is_recorded_and_not_announced():
    record = HealthRecord(critical=["router"])
    assert record.set_status("router", HEALTHY, "ignored", 1.0) == ()
    assert record.components == {"router": ComponentHealth(status=HEALTHY, reason="", since_s=1.0)}
    assert record.overall is HEALTHY


def test_a_change_is_announced_once_with_its_reason_and_with_what_it_means_for_the_whole():
    record = HealthRecord(critical=["router"])
    down = record.set_status("files", UNHEALTHY, "3 probes failed", 5.0)
    assert down == (
        StatusChanged(component="files", old=HEALTHY, new=UNHEALTHY, reason="3 probes failed"),
        StatusChanged(component="overall", old=HEALTHY, new=DEGRADED, reason="files: 3 probes failed"),
    )
    assert record.set_status("files", UNHEALTHY, "4 probes failed", 6.0) == ()
    assert record.components["files"] == ComponentHealth(status=UNHEALTHY, reason="4 probes failed", since_s=5.0)
    assert [change.new for change in record.set_status("router", UNHEALTHY, "no answer", 7.0)] == [UNHEALTHY, UNHEALTHY]
    assert [change.new for change in record.set_status("router", HEALTHY, "", 8.0)] == [HEALTHY, DEGRADED]
    assert record.components["router"].since_s == 8.0


def test_forgetting_what_was_ill_makes_the_whole_well():
    record = HealthRecord(critical=[])
    record.set_status("files", UNHEALTHY, "gone", 1.0)
    expected = StatusChanged(component="overall", old=DEGRADED, new=HEALTHY, reason="files was removed")
    assert record.forget("files", 2.0) == (expected,)
    assert record.forget("files", 3.0) == ()
    assert record.components == {}


@pytest.mark.parametrize(
    ("findings", "worst", "expected"),
    [
        ("+--+", UNHEALTHY, "hddh"),
        ("---", UNHEALTHY, "ddu"),
        ("---+-+-++", UNHEALTHY, "dduuuuuuh"),
        ("---++", UNHEALTHY, "dduuh"),
        ("~~~~", UNHEALTHY, "dddd"),
        ("---~~", UNHEALTHY, "dduud"),
        ("----++", DEGRADED, "hhdddh"),
    ],
)
def test_a_component_is_unhealthy_after_three_bad_findings_and_well_after_two_good_ones(findings, worst, expected):
    """Findings: "+" well, "~" half well, "-" not at all. Source: HAProxy, defaults of `fall` and `rise`."""
    verdict = SteadyVerdict(worst)
    kinds = {"+": HEALTHY, "~": DEGRADED, "-": UNHEALTHY}
    assert "".join(verdict.observe(kinds[each]).value[0] for each in findings) == expected


def test_the_history_keeps_the_newest_changes_in_order():
    record = HealthRecord(critical=[])
    for number in range(200):
        record.set_status("files", DEGRADED if number % 2 else HEALTHY, str(number), float(number))
    assert len(record.history) == HISTORY_LENGTH
    times = [past.at_s for past in record.history]
    assert times == sorted(times)
    assert times[-1] == 199.0
