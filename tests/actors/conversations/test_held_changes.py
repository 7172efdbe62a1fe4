"""Notifications that say the same: one at once, one more for those that follow within a window, and none for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.conversations.held_changes import HeldChanges

TOOLS, PROMPTS = "notifications/tools/list_changed", "notifications/prompts/list_changed"


def test_the_first_passes_and_the_last_of_the_others_is_kept() -> None:
    changes = HeldChanges()
    assert changes.passes(TOOLS, b"1")
    assert not changes.passes(TOOLS, b"2")
    assert not changes.passes(TOOLS, b"3")
    assert changes.close(TOOLS) == b"3"
    assert not changes.passes(TOOLS, b"4")  # what was kept has opened another window
    assert changes.close(TOOLS) == b"4"
    assert changes.close(TOOLS) == b""
    assert changes.passes(TOOLS, b"5")


def test_kinds_do_not_hold_up_each_other() -> None:
    changes = HeldChanges()
    assert changes.passes(TOOLS, b"1")
    assert changes.passes(PROMPTS, b"1")
    assert changes.close(PROMPTS) == b""
    assert not changes.passes(TOOLS, b"2")


@given(st.lists(st.sampled_from(["change", "window"]), max_size=50))
def test_no_change_stays_untold(steps: list[str]) -> None:
    """Whatever comes when: once every window is closed, the last thing told is the last change."""
    changes = HeldChanges()
    told = b""
    for number, step in enumerate(steps):
        data = b"%d" % number
        if step == "change":
            last = data
            told = data if changes.passes(TOOLS, data) else told
        else:
            told = changes.close(TOOLS) or told
    while kept := changes.close(TOOLS):
        told = kept
    assert "change" not in steps or told == last
