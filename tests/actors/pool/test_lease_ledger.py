"""Lease ledger: leases never exceed the limit, waiters are served in order, and none past its deadline."""

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_gateway.actors.pool.lease_ledger import DuplicateLease, Grant, LeaseCounts, LeaseLedger, UnknownLease


def full_ledger(*, max_waiting=10):
    """Two holders, 1 and 2: one within the pool, one overflow."""
    ledger = LeaseLedger(1, 1, max_waiting)
    assert [ledger.request(1, 5.0), ledger.request(2, 5.0)] == [Grant.GRANTED, Grant.GRANTED]
    return ledger


def test_pool_then_overflow_then_queue_then_refusal():
    ledger = full_ledger(max_waiting=1)
    assert ledger.counts == LeaseCounts(idle=0, leased=2, waiting=0, overflow=1)
    assert ledger.request(3, 5.0) is Grant.QUEUED
    assert ledger.request(4, 5.0) is Grant.REFUSED
    assert ledger.counts == LeaseCounts(idle=0, leased=2, waiting=1, overflow=1)


def test_no_queue_means_refusal_at_once():
    assert full_ledger(max_waiting=0).request(3, 5.0) is Grant.REFUSED


def test_waiters_are_granted_in_the_order_they_came():
    ledger = full_ledger()
    for lease_id, deadline_s in ((5, 9.0), (4, 7.0), (3, 8.0)):
        ledger.request(lease_id, deadline_s)
    assert [ledger.release(1, 0.0), ledger.release(2, 0.0), ledger.release(5, 0.0)] == [(5,), (4,), (3,)]


def test_waiter_past_its_deadline_is_never_granted_a_lease_and_expires_once():
    ledger = full_ledger()
    ledger.request(3, 1.0)
    ledger.request(4, 2.0)
    assert ledger.release(1, 1.0) == (4,)
    assert ledger.next_deadline_s == 1.0
    assert ledger.expire(1.0) == (3,)
    assert ledger.expire(9.0) == ()
    assert ledger.next_deadline_s is None


def test_a_lease_stays_free_when_all_waiters_are_past_their_deadline():
    ledger = full_ledger()
    ledger.request(3, 1.0)
    assert ledger.release(1, 2.0) == ()
    assert ledger.counts == LeaseCounts(idle=0, leased=1, waiting=0, overflow=0)
    assert ledger.request(4, 9.0) is Grant.GRANTED
    assert ledger.expire(2.0) == (3,)


def test_expired_waiters_leave_in_the_order_of_their_deadlines():
    ledger = full_ledger()
    for lease_id, deadline_s in ((3, 3.0), (4, 1.0), (5, 2.0), (6, 9.0)):
        ledger.request(lease_id, deadline_s)
    assert ledger.next_deadline_s == 1.0
    assert ledger.expire(3.0) == (4, 5, 3)
    assert ledger.next_deadline_s == 9.0


def test_cancelled_waiter_frees_its_place_in_the_queue():
    ledger = full_ledger(max_waiting=1)
    ledger.request(3, 5.0)
    assert ledger.cancel(3, 0.0) == ()
    assert ledger.next_deadline_s is None
    assert ledger.request(4, 5.0) is Grant.QUEUED
    assert ledger.release(1, 0.0) == (4,)


def test_cancelled_holder_passes_its_lease_on():
    ledger = full_ledger()
    ledger.request(3, 5.0)
    assert ledger.cancel(1, 0.0) == (3,)


def test_cancelling_what_is_unknown_does_nothing():
    """A cancellation may cross the release on its way."""
    ledger = full_ledger()
    assert ledger.cancel(99, 0.0) == ()
    assert ledger.counts.leased == 2


def test_a_waiter_cancelled_after_its_deadline_is_not_told_of_again():
    ledger = full_ledger()
    ledger.request(3, 1.0)
    ledger.release(1, 2.0)
    ledger.cancel(3, 2.0)
    assert ledger.expire(2.0) == ()


def test_giving_back_what_is_not_held_is_an_error():
    ledger = full_ledger()
    with pytest.raises(UnknownLease, match="lease 99 is not held"):
        ledger.release(99, 0.0)
    ledger.request(3, 5.0)
    with pytest.raises(UnknownLease, match="waits"):
        ledger.release(3, 0.0)
    ledger.release(1, 0.0)
    with pytest.raises(UnknownLease):
        ledger.release(1, 0.0)


def test_one_id_asks_once():
    ledger = full_ledger()
    ledger.request(3, 5.0)
    for lease_id in (1, 3):
        with pytest.raises(DuplicateLease):
            ledger.request(lease_id, 5.0)


def test_growing_grants_waiters_and_shrinking_takes_no_lease_away():
    ledger = full_ledger()
    for lease_id in (3, 4, 5):
        ledger.request(lease_id, 5.0)
    assert ledger.resize(3, 1, 0.0) == (3, 4)
    assert ledger.resize(1, 0, 0.0) == ()
    assert ledger.counts == LeaseCounts(idle=0, leased=4, waiting=1, overflow=3)
    assert [ledger.release(lease_id, 0.0) for lease_id in (1, 2, 3, 4)] == [(), (), (), (5,)]


def test_a_limit_below_the_sizes_holds_through_changes_of_them_and_one_lease_is_always_there():
    ledger = LeaseLedger(2, 1, 5)
    assert ledger.limit_to(0, 0.0) == ()
    assert [ledger.request(lease_id, 5.0) for lease_id in (1, 2, 3)] == [Grant.GRANTED, Grant.QUEUED, Grant.QUEUED]
    assert ledger.resize(9, 0, 0.0) == ()
    assert ledger.limit_to(2, 0.0) == (2,)
    assert ledger.limit_to(99, 0.0) == (3,)
    assert ledger.limit_to(None, 0.0) == ()


@pytest.mark.parametrize(("pool_size", "max_overflow", "max_waiting"), [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_limits_without_meaning_are_refused(pool_size, max_overflow, max_waiting):
    with pytest.raises(ValueError, match="must be at least"):
        LeaseLedger(pool_size, max_overflow, max_waiting)


def test_short_waits_with_far_deadlines_leave_nothing_behind():
    ledger = LeaseLedger(1, 0, 10)
    ledger.request(0, 1e9)
    for lease_id in range(1, 5_000):
        ledger.request(lease_id, 1e9)
        assert ledger.release(lease_id - 1, 0.0) == (lease_id,)
        ledger.assert_consistent()


def test_ten_thousand_waiters_cost_no_more_each_than_a_few():
    """Quadratic behaviour would take minutes here."""
    ledger = LeaseLedger(1, 0, 20_000)
    started_s = time.thread_time()
    for lease_id in range(20_000):
        ledger.request(lease_id, 1e9)
    for lease_id in range(10_000):
        ledger.release(lease_id, 0.0)
    for lease_id in range(10_001, 20_000):
        ledger.cancel(lease_id, 0.0)
    assert time.thread_time() - started_s < 2.0


class LedgerAgainstModel(RuleBasedStateMachine):
    """The ledger does what a list of holders and a list of waiters would do."""

    def __init__(self):
        super().__init__()
        self.pool_size, self.max_overflow, self.max_waiting = 2, 1, 3
        self.ledger = LeaseLedger(self.pool_size, self.max_overflow, self.max_waiting)
        self.now_s = 0.0
        self.holders, self.waiters, self.lapsed = [], [], []  # waiters: [(id, deadline)]
        self.next_id = 0
        self.limit = None

    @property
    def capacity(self):
        size = self.pool_size + self.max_overflow
        return size if self.limit is None else max(1, min(size, self.limit))

    def granted(self):
        newly = []
        while self.waiters and len(self.holders) < self.capacity:
            lease_id, deadline_s = self.waiters.pop(0)
            if deadline_s > self.now_s:
                self.holders.append(lease_id)
                newly.append(lease_id)
            else:
                self.lapsed.append((lease_id, deadline_s))
        return tuple(newly)

    @rule(delay_s=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def request(self, delay_s):
        self.next_id += 1
        grant = self.ledger.request(self.next_id, self.now_s + delay_s)
        if len(self.holders) < self.capacity:
            assert grant is Grant.GRANTED
            self.holders.append(self.next_id)
        elif len(self.waiters) < self.max_waiting:
            assert grant is Grant.QUEUED
            self.waiters.append((self.next_id, self.now_s + delay_s))
        else:
            assert grant is Grant.REFUSED

    @rule(index=st.integers(0, 5))
    def release(self, index):
        if index < len(self.holders):
            lease_id = self.holders.pop(index)
            assert self.ledger.release(lease_id, self.now_s) == self.granted()
        else:
            with pytest.raises(UnknownLease):
                self.ledger.release(10_000 + index, self.now_s)

    @rule(index=st.integers(0, 8))
    def cancel(self, index):
        everyone = [*self.holders, *(lease_id for lease_id, _ in self.waiters + self.lapsed), 10_000]
        lease_id = everyone[index % len(everyone)]
        self.holders = [holder for holder in self.holders if holder != lease_id]
        self.waiters = [waiter for waiter in self.waiters if waiter[0] != lease_id]
        self.lapsed = [waiter for waiter in self.lapsed if waiter[0] != lease_id]
        assert self.ledger.cancel(lease_id, self.now_s) == self.granted()

    @rule(passed_s=st.sampled_from([0.0, 0.5, 2.0]))
    def pass_time_and_expire(self, passed_s):
        self.now_s += passed_s
        expired = self.lapsed + [waiter for waiter in self.waiters if waiter[1] <= self.now_s]
        self.waiters = [waiter for waiter in self.waiters if waiter[1] > self.now_s]
        self.lapsed = []
        told = self.ledger.expire(self.now_s)
        assert sorted(told) == sorted(lease_id for lease_id, _ in expired)
        assert [dict(expired)[lease_id] for lease_id in told] == sorted(deadline_s for _, deadline_s in expired)

    @rule(passed_s=st.sampled_from([0.5, 2.0]))
    def pass_time(self, passed_s):
        self.now_s += passed_s

    @rule(pool_size=st.integers(1, 3), max_overflow=st.integers(0, 2))
    def resize(self, pool_size, max_overflow):
        self.pool_size, self.max_overflow = pool_size, max_overflow
        assert self.ledger.resize(pool_size, max_overflow, self.now_s) == self.granted()

    @rule(limit=st.none() | st.integers(0, 6))
    def limit_to(self, limit):
        self.limit = limit
        assert self.ledger.limit_to(limit, self.now_s) == self.granted()

    @invariant()
    def ledger_agrees_with_the_model(self):
        self.ledger.assert_consistent()
        assert self.ledger.counts == LeaseCounts(
            idle=max(0, self.pool_size - len(self.holders)),
            leased=len(self.holders),
            waiting=len(self.waiters),
            overflow=max(0, len(self.holders) - self.pool_size),
        )
        assert self.ledger.has_room == (len(self.holders) < self.capacity)
        assert self.ledger.next_deadline_s == min((waiter[1] for waiter in self.lapsed or self.waiters), default=None)


LedgerAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerAgainstModel = LedgerAgainstModel.TestCase
