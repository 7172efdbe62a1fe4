"""Circuit breaker: opens after failures in a row, tries one request at a time, closes on success."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.routing.circuit_breaker import _TRANSITIONS, CircuitBreaker, CircuitEvent, CircuitState, Transition
from mcp_gateway.actors.routing.outlier_window import OutlierRules

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


# ---- how soon it is over


def seen_by(breaker, *seen, at_s=0.0):
    """Each client's failure by name, probes "well" and "ill", "ok": a call that went well, a number: so many seconds pass."""
    for each in seen:
        if isinstance(each, (int, float)):
            at_s += each
        elif each in ("well", "ill"):
            breaker.record_probe(at_s, is_well=each == "well")
        elif each == "try":
            assert breaker.allows(at_s), f"not tried at {at_s}"
        elif each == "ok":
            breaker.record_success(at_s)
        else:
            breaker.record_failure(at_s, each)
    return at_s


OPENS = (ADA, ADA, BOB)


@pytest.mark.parametrize(
    ("seen", "state", "retry_after_s"),
    [
        (OPENS, OPEN, 30.0),
        ((*OPENS, 0.5, "well"), OPEN, 0.0),  # the trial is due
        ((*OPENS, 0.5, "well", 0.5, "well"), CLOSED, 0.0),
        ((*OPENS, 0.5, "ill", 0.5, "well"), CLOSED, 0.0),
        ((*OPENS, 0.5, "well", "try", 0.5, "well"), CLOSED, 0.0),  # its tool takes its time
        ((*OPENS, 0.5, "well", "try", "ok"), CLOSED, 0.0),
        # It answers its probes, and nothing else: they are believed no more than that a trial may be worth it.
        ((*OPENS, "well", "try", ADA), OPEN, 30.0),
        ((*OPENS, "well", "try", ADA, 0.5, "well", 0.25, "well"), OPEN, 0.25),
        ((*OPENS, "well", "try", ADA, "well", 1, "try", ADA, "well"), OPEN, 2.0),
        ((*OPENS, "well", "try", ADA, "well", 1, "try", ADA, "well", 2, "try", ADA, "well"), OPEN, 4.0),
        ((*OPENS, "well", "well", *OPENS, "well", "well", "well"), OPEN, 1.0),
        ((*OPENS, "well", "well", *OPENS, "well", 1, "try", "ok", *OPENS, "well"), OPEN, 2.0),
        ((*OPENS, "well", "well", *OPENS, "ill", "well"), CLOSED, 0.0),  # this time its probes failed as well
        # Long after, it is another matter.
        ((*OPENS, "well", "well", 30, *OPENS, "well"), OPEN, 0.0),
        ((*OPENS, "well", "well", 29, *OPENS, "well"), OPEN, 1.0),
    ],
    ids=lambda part: " ".join(map(str, part)) if isinstance(part, tuple) else "",
)
def test_probes_tell_when_it_is_over_as_long_as_they_do_not_mislead(seen, state, retry_after_s):
    breaker = CircuitBreaker(3, 30.0)
    now_s = seen_by(breaker, *seen)
    assert (breaker.state, breaker.retry_after_s(now_s)) == (state, retry_after_s)


CAROL = "192.0.2.3"


def trials_failed_by(*clients, at_s=0.0):
    """(a circuit that has opened, whose trials these have had and failed each as soon as it was due; when the last one did)"""
    breaker = CircuitBreaker(3, 30.0)
    now_s = seen_by(breaker, *OPENS, "well", at_s=at_s)
    for client in clients:
        now_s += breaker.retry_after_s(now_s, client=client)
        assert breaker.allows(now_s, client=client)
        assert breaker.record_failure(now_s, client) == Transition(HALF_OPEN, OPEN)
        assert not breaker.would_allow(now_s)
        seen_by(breaker, "well", at_s=now_s)
    return breaker, now_s


@pytest.mark.parametrize(
    ("losers", "waits_s"),
    [
        # {who asks next: how long it waits}, "" for somebody of whom nothing is known
        ((ADA,), {ADA: 1.0, BOB: 0.0, CAROL: 0.0, "": 1.0}),
        ((ADA, ADA, ADA), {ADA: 4.0, BOB: 0.0, CAROL: 0.0, "": 4.0}),
        ((ADA, BOB), {ADA: 2.0, BOB: 2.0, CAROL: 2.0, "": 2.0}),
        ((ADA, ADA, BOB, ADA), {ADA: 8.0, BOB: 8.0, CAROL: 8.0, "": 8.0}),
    ],
)
def test_a_failed_trial_keeps_others_waiting_where_two_clients_have_had_one(losers, waits_s):
    breaker, now_s = trials_failed_by(*losers)
    assert {client: breaker.retry_after_s(now_s, client=client) for client in waits_s} == waits_s


def test_who_tries_after_somebody_elses_failed_trial_waits_for_a_good_probe_and_closes_the_circuit():
    breaker = CircuitBreaker(3, 30.0)
    now_s = seen_by(breaker, *OPENS, "well", "try", ADA)
    assert breaker.retry_after_s(now_s, client=BOB) == 30.0
    seen_by(breaker, "well", at_s=now_s)
    assert not breaker.allows(now_s, client=ADA)
    assert breaker.allows(now_s, client=BOB)
    assert not breaker.allows(now_s, client=CAROL), "one trial at a time"
    assert breaker.record_success(now_s) == Transition(HALF_OPEN, CLOSED)
    # What was then is forgotten: the next failed trial is the first one.
    now_s = seen_by(breaker, *OPENS, "well", at_s=now_s + 40)
    assert breaker.allows(now_s, client=BOB)
    seen_by(breaker, BOB, "well", at_s=now_s)
    assert breaker.retry_after_s(now_s, client=ADA) == 0.0


def test_a_trial_is_not_failed_by_what_others_have_on_their_way():
    breaker = CircuitBreaker(3, 30.0)
    now_s = seen_by(breaker, *OPENS, "well")
    assert breaker.allows(now_s, client=BOB)
    assert breaker.record_failure(now_s, ADA) is None
    assert breaker.state is HALF_OPEN
    assert not breaker.allows(now_s, client=ADA), "the trial goes on"
    assert breaker.record_failure(now_s, BOB) == Transition(HALF_OPEN, OPEN)


def test_the_last_resort_of_a_call_is_tried_twice_a_second_where_its_probes_are_good():
    breaker = CircuitBreaker(3, 30.0)
    now_s = seen_by(breaker, *OPENS, "well", "try", ADA, "well", 1, "try", ADA)
    assert breaker.retry_after_s(now_s, is_last_resort=True) == 30.0
    now_s = seen_by(breaker, 0.25, "well", at_s=now_s)
    assert (breaker.retry_after_s(now_s), breaker.retry_after_s(now_s, is_last_resort=True)) == (1.75, 0.25)
    assert not breaker.allows(now_s + 0.24, is_last_resort=True)
    assert not breaker.allows(now_s + 0.25)
    assert breaker.allows(now_s + 0.25, is_last_resort=True)
    assert not breaker.allows(now_s + 0.25, is_last_resort=True), "one trial at a time"


def test_the_backoff_doubles_up_to_the_reset_time_and_each_is_drawn_anew():
    drawn = iter([0.5, 1.0, 0.75, *[1.0] * 30])
    breaker = CircuitBreaker(3, 30.0, jitter=lambda: next(drawn))
    now_s = seen_by(breaker, *OPENS, "well", "try")
    waits_s = []
    for _ in range(9):
        breaker.record_failure(now_s, ADA)
        breaker.record_probe(now_s, is_well=True)
        waits_s.append(breaker.retry_after_s(now_s))
        now_s += waits_s[-1]
        assert breaker.allows(now_s)
    assert waits_s == [0.5, 2.0, 3.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]


def test_very_many_failed_trials_are_counted_without_harm():
    breaker = CircuitBreaker(3, 604_800.0)
    now_s = seen_by(breaker, *OPENS)
    for _ in range(3_000):
        breaker.record_probe(now_s, is_well=True)
        now_s += breaker.retry_after_s(now_s)
        assert breaker.allows(now_s)
        breaker.record_failure(now_s, ADA)
    assert breaker.retry_after_s(now_s) == 604_800.0


# ---- rates


RATES = OutlierRules(window_s=10.0, minimum_calls=10, failure_rate_threshold=0.5, slow_call_rate_threshold=0.5)


def half_failing(breaker, call_count, *, has_other=True, may_open=True):
    """Every second call fails, never two in a row; the last transition."""
    transition = None
    for number in range(call_count // 2):
        breaker.record_success(0.0)
        transition = breaker.record_failure(0.0, (ADA, BOB)[number % 2], 1, has_other=has_other, may_open=may_open)
    return transition


def test_a_circuit_opens_at_the_failure_rate_where_another_replica_can_take_its_calls():
    breaker = CircuitBreaker(3, 30.0, RATES)
    assert half_failing(breaker, 8) is None
    assert half_failing(breaker, 2) == Transition(CLOSED, OPEN)


@pytest.mark.parametrize("room", [{"has_other": False}, {"may_open": False}])
def test_some_calls_that_succeed_are_better_than_none(room):
    breaker = CircuitBreaker(3, 30.0, RATES)
    assert half_failing(breaker, 200, **room) is None
    assert breaker.state is CLOSED


def test_rates_that_are_not_asked_for_open_nothing():
    breaker = CircuitBreaker(3, 30.0)
    assert half_failing(breaker, 200) is None
    for _ in range(200):
        assert breaker.record_slow_call(0.0, ADA, has_other=True) is None
        assert breaker.record_slow_call(0.0, BOB, has_other=True) is None


def test_slow_calls_open_a_circuit_by_their_share_and_are_judged_once():
    breaker = CircuitBreaker(3, 30.0, RATES)
    for number in range(9):
        assert breaker.record_slow_call(0.0, (ADA, BOB)[number % 2], has_other=True) is None
    assert breaker.record_slow_call(0.0, BOB, has_other=False) is None
    assert breaker.record_slow_call(0.0, BOB, has_other=True) == Transition(CLOSED, OPEN)
    assert breaker.record_slow_call(1.0, ADA, has_other=True) is None, "it was on its way"
    seen_by(breaker, "well", "well")
    assert breaker.state is CLOSED
    assert breaker.record_slow_call(1.0, ADA, has_other=True) is None


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
                [
                    "allows",
                    "allows Ada",
                    "success",
                    ADA,
                    BOB,
                    "timeout",
                    "slow",
                    "good probe",
                    "bad probe",
                    "abandon",
                    "abandon an old one",
                ]
            ),
            st.sampled_from([0.0, 1.0, 4.0, 10.0]),
        ),
        max_size=60,
    )
)
def test_every_change_follows_the_table_and_an_open_circuit_never_lets_two_through(steps):
    rates = OutlierRules(minimum_calls=3, failure_rate_threshold=0.5, slow_call_rate_threshold=0.5)
    breaker, now_s, last_trial_s, trial = CircuitBreaker(2, 10.0, rates), 0.0, None, 0
    for action, passed_s in steps:
        now_s += passed_s
        old = breaker.state
        if action.startswith("allows"):
            client = ADA if action == "allows Ada" else ""
            expected = breaker.retry_after_s(now_s, client=client) == 0.0
            assert expected or not breaker.would_allow(now_s)
            allowed = breaker.allows(now_s, trial + 1, client=client)
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
            elif action == "slow":
                transition = breaker.record_slow_call(now_s, BOB, has_other=True)
            else:
                transition = breaker.record_failure(now_s, action, has_other=True)
            assert (transition == Transition(old, breaker.state)) if breaker.state is not old else (transition is None)
            last_trial_s = last_trial_s if breaker.state is HALF_OPEN else None
        assert breaker.state is old or any(start is old and end is breaker.state for (start, _), end in _TRANSITIONS.items())
        assert 0.0 <= breaker.retry_after_s(now_s) <= 10.0
        assert breaker.would_allow(now_s + breaker.retry_after_s(now_s))
