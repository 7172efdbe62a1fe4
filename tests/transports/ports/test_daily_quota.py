"""The counts of a day in one cell, and what several cells let through together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.ports.daily_quota import DailyQuota, day_of

NOON_S = 20_000 * 86_400 + 43_200.0
TODAY = 20_000


def admitted(quota: DailyQuota, client: str, tries: int, now_s: float = NOON_S) -> int:
    return sum(not quota.take(client, now_s) for _ in range(tries))


def test_a_client_at_its_limit_passes_and_past_it_is_told_when_the_day_is_over() -> None:
    quota = DailyQuota(3)
    assert [quota.take("ann", NOON_S) for _ in range(4)] == [0.0, 0.0, 0.0, 43_200.0]
    assert quota.take("bob", NOON_S) == 0.0


def test_with_the_next_day_everybody_begins_anew() -> None:
    quota = DailyQuota(1)
    midnight_s = (TODAY + 1) * 86_400
    assert [day_of(midnight_s - 0.5), day_of(midnight_s)] == [TODAY, TODAY + 1]
    assert [quota.take("ann", when) for when in (NOON_S, midnight_s - 0.5, midnight_s, midnight_s)] == [0.0, 0.5, 0.0, 86_400.0]


def test_what_others_have_counted_counts_here_and_what_is_known_never_becomes_less() -> None:
    quota = DailyQuota(5)
    quota.learn(TODAY, {"ann": 3})
    assert admitted(quota, "ann", 1) == 1
    quota.learn(TODAY, {"ann": 1, "bob": 5})
    assert (admitted(quota, "ann", 9), admitted(quota, "bob", 9)) == (1, 0)


def test_each_request_is_reported_until_a_report_is_taken_and_refused_ones_never_are() -> None:
    quota = DailyQuota(3)
    admitted(quota, "ann", 9)
    assert quota.report(NOON_S) == quota.report(NOON_S) == (TODAY, {"ann": 3})
    quota.report_taken()
    assert quota.report(NOON_S) == (TODAY, {})
    assert admitted(quota, "ann", 1) == 0


def test_what_is_used_while_a_report_is_on_its_way_is_in_the_next_one() -> None:
    quota = DailyQuota(5)
    admitted(quota, "ann", 2)
    assert quota.report(NOON_S) == (TODAY, {"ann": 2})
    admitted(quota, "ann", 1)
    quota.take("bob", NOON_S)
    quota.report_taken()
    quota.learn(TODAY, {"ann": 2})
    assert quota.report(NOON_S) == (TODAY, {"ann": 1, "bob": 1})
    assert admitted(quota, "ann", 9) == 2


def test_a_report_that_midnight_has_overtaken_changes_nothing_of_the_new_day() -> None:
    quota = DailyQuota(3)
    admitted(quota, "ann", 2)
    quota.report(NOON_S)
    assert quota.take("ann", NOON_S + 86_400) == 0.0
    quota.report_taken()
    quota.learn(TODAY, {"ann": 3})
    assert quota.report(NOON_S + 86_400) == (TODAY + 1, {"ann": 1})
    assert admitted(quota, "ann", 9, NOON_S + 86_400) == 2


def test_what_was_told_of_another_day_does_not_count_today() -> None:
    quota = DailyQuota(1)
    quota.learn(TODAY - 1, {"ann": 1})
    assert admitted(quota, "ann", 1) == 1


def test_clients_at_the_bound_are_remembered_and_one_past_it_makes_the_longest_unused_forgotten() -> None:
    quota = DailyQuota(1, most_clients=2)
    for client in ("ann", "bob", "ann"):
        quota.take(client, NOON_S)
    assert (admitted(quota, "ann", 1), admitted(quota, "bob", 1)) == (0, 0)
    quota.take("ann", NOON_S)
    quota.take("cid", NOON_S)
    assert len(quota) == 2
    assert admitted(quota, "ann", 1) == 0
    assert admitted(quota, "bob", 1) == 1


def test_what_is_told_makes_nobody_forgotten() -> None:
    quota = DailyQuota(1, most_clients=2)
    quota.take("ann", NOON_S)
    quota.learn(TODAY, {"bob": 1, "cid": 1})
    assert len(quota) == 2
    assert admitted(quota, "ann", 1) == 0


@pytest.mark.parametrize("arguments", [(0, 1), (1, 0)])
def test_a_quota_of_nothing_is_an_error(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DailyQuota(*arguments)


CELLS = 3
STEPS = st.lists(st.tuples(st.integers(0, CELLS - 1), st.sampled_from(["ask", "ask", "ask", "report"])), max_size=200)


@given(limit=st.integers(1, 20), steps=STEPS)
def test_cells_let_no_more_through_than_the_limit_and_what_others_had_not_reported(
    limit: int, steps: list[tuple[int, str]]
) -> None:
    """One client. Here all cells learn of each report at once."""
    cells = [DailyQuota(limit) for _ in range(CELLS)]
    counted = total = 0

    def unreported(cell: DailyQuota) -> int:
        return cell.report(NOON_S)[1].get("ann", 0)

    for index, step in steps:
        cell, others = cells[index], sum(unreported(each) for each in cells if each is not cells[index])
        if step == "ask":
            is_admitted = not cell.take("ann", NOON_S)
            total += is_admitted
            assert total <= limit + others if is_admitted else total >= limit
        else:
            counted += unreported(cell)
            cell.report_taken()
            for each in cells:
                each.learn(TODAY, {"ann": counted})
        assert counted + sum(map(unreported, cells)) == total


@given(limit=st.integers(1, 20), asked=st.lists(st.sampled_from("ab"), max_size=60))
def test_a_cell_alone_lets_exactly_the_limit_through(limit: int, asked: list[str]) -> None:
    quota = DailyQuota(limit)
    let_through = [client for client in asked if not quota.take(client, NOON_S)]
    for client in "ab":
        assert let_through.count(client) == min(limit, asked.count(client))
