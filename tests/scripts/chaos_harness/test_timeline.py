"""A drawing is well-formed XML, whatever has happened."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.fault_kinds import FAULTS
from mcp_gateway.scripts.chaos_harness.history import Asked, Ended, FaultBegan, History, Recovered, Weighed
from mcp_gateway.scripts.chaos_harness.timeline import draw


@given(
    st.lists(st.tuples(st.floats(0, 60), st.sampled_from(("ok", "circuit_open", "cut")))),
    st.lists(st.tuples(st.floats(0, 60), st.sampled_from(FAULTS), st.booleans())),
    st.lists(st.integers(0, 10**10)),
)
def test_every_run_can_be_drawn(
    calls: list[tuple[float, str]], faults: list[tuple[float, object, bool]], weights: list[int]
) -> None:
    history = History()
    for number, (at_s, outcome) in enumerate(calls):
        history.add(Asked(call_id=number, client="c", backend="demo", argument="", at_s=at_s, deadline_s=at_s + 1))
        history.add(Ended(call_id=number, outcome=outcome, at_s=at_s))
    for number, (at_s, kind, is_recovered) in enumerate(faults):
        history.add(FaultBegan(fault_id=number, fault=kind.name, target="<&>", at_s=at_s))  # type: ignore[attr-defined]
        if is_recovered:
            history.add(Recovered(fault_id=number, at_s=at_s + 1))
    for memory_bytes in weights:
        history.add(Weighed(processes=1, memory_bytes=memory_bytes, descriptors=1, files=1, at_s=30))
    drawn = ElementTree.fromstring(draw(history, 0.0, 60.0))
    assert drawn.tag.endswith("svg")
    assert sum(element.tag.endswith("title") for element in drawn.iter()) == len(faults)
