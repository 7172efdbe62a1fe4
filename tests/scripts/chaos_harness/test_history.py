"""A history gives its records back in their order, by kind."""

from __future__ import annotations

from mcp_gateway.scripts.chaos_harness.history import Asked, Ended, History, as_json


def test_records_come_back_in_order_by_kind() -> None:
    history = History()
    asked = Asked(call_id=1, client="c", backend="demo", argument="", at_s=1.0, deadline_s=2.0)
    ends = [Ended(call_id=1, outcome="ok", at_s=1.5), Ended(call_id=2, outcome="cut", at_s=1.2)]
    for record in (ends[0], asked, ends[1]):
        history.add(record)
    assert [*history] == [ends[0], asked, ends[1]]
    assert (history.of(Ended), history.of(Asked), len(history)) == (ends, [asked], 3)
    assert asked.is_safe
    assert as_json(ends[1]) == {"record": "Ended", "call_id": 2, "outcome": "cut", "at_s": 1.2}
