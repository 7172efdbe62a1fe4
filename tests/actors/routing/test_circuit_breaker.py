"""Circuit breaker: opens after failures in a row, tries one request at a time, closes on success."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.routing.circuit_breaker import _TRANSITIONS, CircuitBreaker, CircuitEvent, CircuitState, Transition

ADA, BOB = "192.0.2.1", "192.0.2.2"
CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN


def opened_breaker(*, at_s=100.0, failure_threshold=3, reset_timeout_s=30.0):
    breaker = CircuitBreaker(failure_threshold, reset_timeout_s)
    for client in [ADA, *[BOB] * failure_threshold][:failure_threshold]:
        transition = breaker.record_failure(at_s, client)
    assert transition == Transition(CLOSED, OPEN)
    return breaker


def test_the_table_of_transitions_is_the_one_of_the_pattern():
    assert {(old, event.name, new) for (old, event), new in _TRANSITIONS.items()} == {
        (CLOSED, "THRESHOLD_REACHED", OPEN),
        (OPEN, "RESET_TIME_OVER", HALF_OPEN),
        (HALF_OPEN, "TRIAL_SUCCEEDED", CLOSED),
        (HALF_OPEN, "TRIAL_FAILED", OPEN),
        (OPEN, "PROBE_SUCCEEDED", CLOSED),
        (HALF_OPEN, "PROBE_SUCCEEDED", CLOSED),
    }
    assert {event for _, event in _TRANSITIONS} == set(CircuitEvent)


def test_only_failures_in_a_row_open_a_circuit():
    breaker = CircuitBreaker(3, 30.0)
    for _ in range(5):
        assert breaker.record_failure(0.0, ADA) is None
        assert breaker.record_failure(0.0, BOB) is None
        assert breaker.record_success(0.0) is None
    assert breaker.state is CLOSED
    assert breaker.allows(0.0)


def test_an_open_circuit_lets_nothing_through_until_the_reset_time_is_over():
    breaker = opened_breaker()
    assert not breaker.allows(100.0)
    assert not breaker.allows(129.9)
    assert breaker.retry_after_s(110.0) == 20.0
    assert breaker.retry_after_s(130.0) == 0.0
    assert breaker.state is OPEN
    assert breaker.allows(130.0)
    assert breaker.state is HALF_OPEN


def test_one_trial_at_a_time_is_let_through():
    breaker = opened_breaker()
    assert [breaker.allows(130.0), breaker.allows(130.0), breaker.allows(159.9)] == [True, False, False]


def test_a_successful_trial_closes_the_circuit():
    breaker = opened_breaker()
    breaker.allows(130.0)
    assert breaker.record_success(131.0) == Transition(HALF_OPEN, CLOSED)
    assert breaker.retry_after_s(131.0) == 0.0
    assert breaker.record_failure(132.0, ADA) is None, "old failures are forgotten"


def test_a_failed_trial_opens_the_circuit_for_the_whole_reset_time_again():
    breaker = opened_breaker()
    breaker.allows(130.0)
    assert breaker.record_failure(140.0, ADA) == Transition(HALF_OPEN, OPEN)
    assert not breaker.allows(169.9)
    assert breaker.allows(170.0)


def test_a_trial_that_never_reports_is_given_up_after_the_reset_time():
    breaker = opened_breaker()
    breaker.allows(130.0)
    assert breaker.retry_after_s(140.0) == 20.0
    assert not breaker.allows(159.9)
    assert breaker.allows(160.0)
    assert not breaker.allows(161.0)


def test_an_abandoned_trial_makes_room_for_the_next_at_once():
    breaker = opened_breaker()
    breaker.allows(130.0)
    breaker.abandon_trial()
    assert breaker.state is HALF_OPEN
    assert breaker.allows(130.0)
    assert not breaker.allows(130.0)


def test_only_the_call_that_took_the_trial_can_abandon_it():
    breaker = opened_breaker()
    breaker.allows(130.0, 1)
    assert breaker.allows(160.0, 2), "the first one was given up"
    breaker.abandon_trial(1)
    assert not breaker.would_allow(160.0)
    breaker.abandon_trial(2)
    assert breaker.would_allow(160.0)


def test_late_outcomes_do_not_move_an_open_circuit():
    breaker = opened_breaker()
    assert breaker.record_success(101.0) is None
    assert breaker.record_failure(120.0, ADA) is None
    assert breaker.allows(130.0), "late failures must not prolong the opening"


def test_asking_without_taking_leaves_the_trial_to_the_next():
    breaker = opened_breaker()
    assert not breaker.would_allow(129.0)
    assert breaker.would_allow(130.0)
    assert breaker.allows(130.0)
    assert not breaker.would_allow(130.0)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        # A threshold of 3; each client's failure by name, "ok", "slow" (no answer in time), probes "well" and "ill".
        ((ADA,) * 12, CLOSED),
        ((ADA, ADA, BOB), OPEN),
        ((ADA, BOB), CLOSED),
        ((ADA, BOB, "ok", ADA, ADA, ADA), CLOSED),
        ((ADA,) * 3 + ("ill",), OPEN),
        ((ADA, "ill", ADA, ADA), OPEN),
        ((ADA, "ill", ADA), CLOSED),
        ((ADA, "ill", "well", ADA, ADA), CLOSED),
        ((ADA, "ill", "ok", ADA, ADA, ADA), CLOSED),
        (("ill",) * 12, CLOSED),  # the health monitor's business
        ((ADA,) * 3 + ("well",) * 3, CLOSED),
        ((ADA, ADA, BOB, "well"), OPEN),  # it answers its probes, and nothing else
        ((ADA, ADA, BOB, "ill", "well"), CLOSED),
        ((ADA,) * 3 + ("ill", "ill", "well"), CLOSED),
        ((ADA,) * 3 + ("ill", "well", ADA, ADA, ADA), CLOSED),
        ((ADA,) * 3 + ("ill", "well", ADA, BOB, BOB), OPEN),
        (("slow",) * 12, CLOSED),
        (("slow",) * 12 + (ADA, BOB), CLOSED),
        (("slow",) * 12 + ("well", "ill"), CLOSED),  # it was only busy
        (("slow",) * 12 + ("ok", "ill"), CLOSED),
        (("slow", "slow", "ill"), CLOSED),
        (("slow", "slow", "ill", "slow"), OPEN),
        (("slow", "slow", ADA, "ill"), OPEN),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_a_circuit_opens_on_what_more_than_one_has_seen(seen, state):
    breaker = CircuitBreaker(3, 30.0)
    for each in seen:
        if each == "ok":
            breaker.record_success(0.0)
        elif each in ("well", "ill"):
            breaker.record_probe(0.0, is_well=each == "well")
        elif each == "slow":
            breaker.record_timeout(0.0)
        else:
            breaker.record_failure(0.0, each)
    assert breaker.state is state


def test_a_good_probe_after_a_bad_one_closes_a_circuit_in_its_trial_as_well():
    breaker = opened_breaker()
    assert breaker.record_probe(101.0, is_well=False) is None
    breaker.allows(130.0)
    assert breaker.record_probe(131.0, is_well=True) == Transition(HALF_OPEN, CLOSED)
    assert breaker.record_failure(132.0, ADA) is None, "the trial's own failure is one like any other"


def test_a_circuit_without_room_stays_closed_and_opens_at_the_next_failure_with_room():
    breaker = CircuitBreaker(2, 30.0)
    for client in (ADA, BOB, ADA):
        assert breaker.record_failure(0.0, client, may_open=False) is None
    assert breaker.record_probe(0.0, is_well=False, may_open=False) is None
    assert breaker.allows(0.0)
    assert breaker.has_evidence
    assert breaker.record_failure(0.0, ADA, may_open=True) == Transition(CLOSED, OPEN)
    breaker.allows(30.0)
    assert breaker.record_failure(31.0, ADA, may_open=False) == Transition(HALF_OPEN, OPEN), "it has been out all the time"


def test_gauge_is_what_the_metric_shows():
    breaker = CircuitBreaker(1, 1.0)
    assert breaker.gauge == 0
    breaker.record_failure(0.0, ADA)
    breaker.record_failure(0.0, BOB)
    assert breaker.gauge == 2
    breaker.allows(1.0)
    assert breaker.gauge == 1


@pytest.mark.parametrize(("failure_threshold", "reset_timeout_s"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_limits_without_meaning_are_refused(failure_threshold, reset_timeout_s):
    with pytest.raises(ValueError, match="must be positive"):
        CircuitBreaker(failure_threshold, reset_timeout_s)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["allows", "success", ADA, BOB, "timeout", "good probe", "bad probe", "abandon", "abandon an old one"]
            ),
            st.sampled_from([0.0, 1.0, 4.0, 10.0]),
        ),
        max_size=60,
    )
)
def test_every_change_follows_the_table_and_an_open_circuit_never_lets_two_through(steps):
    breaker, now_s, last_trial_s, trial = CircuitBreaker(2, 10.0), 0.0, None, 0
    for action, passed_s in steps:
        now_s += passed_s
        old = breaker.state
        if action == "allows":
            expected = breaker.would_allow(now_s)
            allowed = breaker.allows(now_s, trial + 1)
            assert allowed is expected
            if allowed and breaker.state is HALF_OPEN:
                trial += 1
                assert last_trial_s is None or now_s >= last_trial_s + 10.0
                last_trial_s = now_s
        elif action == "abandon":
            breaker.abandon_trial(trial)
            last_trial_s = None
        elif action == "abandon an old one":
            breaker.abandon_trial(trial - 1)
        else:
            if action == "success":
                transition = breaker.record_success(now_s)
            elif action.endswith("probe"):
                transition = breaker.record_probe(now_s, is_well=action == "good probe")
            elif action == "timeout":
                transition = breaker.record_timeout(now_s)
            else:
                transition = breaker.record_failure(now_s, action)
            assert (transition == Transition(old, breaker.state)) if breaker.state is not old else (transition is None)
            last_trial_s = last_trial_s if breaker.state is HALF_OPEN else None
        assert breaker.state is old or any(start is old and end is breaker.state for (start, _), end in _TRANSITIONS.items())
        assert 0.0 <= breaker.retry_after_s(now_s) <= 10.0
        assert breaker.would_allow(now_s + breaker.retry_after_s(now_s))
