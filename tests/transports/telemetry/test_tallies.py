"""Counts that wait to be written: each is shown once, soon, and at once to who asks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from mcp_gateway.transports.telemetry.tallies import CounterTally, HistogramTally, write_tallies

BOUNDS = (0.1, 1.0, 10.0)


class Shown:
    """A counter and a histogram with what a scrape shows of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("c", "c", ["x"], registry=self.registry).labels("1")
        self.histogram = Histogram("h", "h", ["x"], registry=self.registry, buckets=BOUNDS).labels("1")

    def of(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, {"x": "1", **labels})
        assert value is not None
        return value

    @property
    def all(self) -> dict[tuple[str, str], float]:
        samples = [sample for metric in self.registry.collect() for sample in metric.samples if "created" not in sample.name]
        return {(sample.name, sample.labels.get("le", "")): sample.value for sample in samples}


def test_what_is_counted_is_shown_to_who_asks_and_to_everybody_soon() -> None:
    async def body() -> None:
        shown = Shown()
        tally = CounterTally(shown.counter)
        tally.inc()
        tally.inc()
        assert shown.of("c_total") == 0
        write_tallies()
        assert shown.of("c_total") == 2
        tally.inc()
        async with asyncio.timeout(10):
            while shown.of("c_total") < 3:
                await asyncio.sleep(0.01)

    asyncio.run(body())


def test_counts_are_shown_at_once_where_no_loop_runs() -> None:
    shown = Shown()
    CounterTally(shown.counter).inc()
    HistogramTally(shown.histogram).observe(0.5)
    assert (shown.of("c_total"), shown.of("h_count")) == (1, 1)


def test_a_loop_that_ends_before_it_has_written_leaves_that_to_the_next() -> None:
    shown = Shown()
    tally, other = CounterTally(shown.counter), CounterTally(Shown().counter)

    async def count(which: CounterTally) -> None:
        which.inc()

    asyncio.run(count(tally))
    assert shown.of("c_total") == 0

    async def wait() -> None:
        other.inc()
        async with asyncio.timeout(10):
            while shown.of("c_total") < 1:
                await asyncio.sleep(0.01)

    asyncio.run(wait())


@pytest.mark.parametrize("is_written_each_time", [True, False])
@given(values=st.lists(st.one_of(st.sampled_from([0.0, *BOUNDS, 11.0]), st.floats(0, 20)), max_size=20))
def test_what_is_observed_reads_as_if_it_had_been_observed_one_by_one(is_written_each_time: bool, values: list[float]) -> None:
    async def body() -> None:
        tallied, direct = Shown(), Shown()
        tally = HistogramTally(tallied.histogram)
        for value in values:
            direct.histogram.observe(value)
            tally.observe(value)
            if is_written_each_time:
                write_tallies()
        write_tallies()
        assert tallied.all == pytest.approx(direct.all)

    asyncio.run(body())
