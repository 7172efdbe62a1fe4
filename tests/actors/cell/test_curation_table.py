"""Curation as a table: each tool that is not simply served as it is, why, and what waits for somebody first."""

from __future__ import annotations

from mcp_gateway.actors.cell.curation_table import MOST_ROWS, curation_table
from mcp_gateway.actors.storage.pin_file import ChangedTool
from mcp_gateway.config.backend_settings import BackendSettings
from tests.doubles.running_cell import cell_settings

TOOLS = {
    "deny": ["rm*", "purge"],
    "rename": {"read": "cat"},
    "overrides": {"list": {"description": "Shows a folder.", "title": "List"}},
    "pin": "enforce",
    "check": ["arguments"],
    "guard": {"url": "http://127.0.0.1:9/guard"},
}


def backends(**tools: object) -> tuple[BackendSettings, ...]:
    return cell_settings([{"name": "files", "builtin": "demo", "tools": tools}, {"name": "plain", "builtin": "demo"}]).backends


def test_each_tool_has_its_state_and_the_reason_and_what_waits_comes_first() -> None:
    seen = {"files": {"rmdir": None, "read": "cat", "a.b": "a_b_871bc5cd", "write": None}, "gone": {"x": None}}
    changed = [ChangedTool("files", "write", ("description", "inputSchema")), ChangedTool("gone", "x", ("title",))]
    (table,) = curation_table(backends(**TOOLS), seen, changed)
    assert (table["backend"], table["left_out"]) == ("files", 0)
    assert table["rules"] == {
        "deny": "rm*, purge",
        "pin": "enforce",
        "check": "arguments",
        "guard": "http://127.0.0.1:9/guard",
    }
    assert [(row["tool"], row["served_as"], row["state"]) for row in table["tools"]] == [
        ("write", "", "waiting"),
        ("a.b", "a_b_871bc5cd", "renamed"),
        ("list", "list", "edited"),
        ("read", "cat", "renamed"),
        ("rmdir", "", "hidden"),
    ]
    assert table["tools"][0]["why"] == "description, inputSchema changed"
    assert table["tools"][2]["why"] == "description, title overridden"


def test_what_has_changed_and_is_served_all_the_same_says_so() -> None:
    (table,) = curation_table(backends(pin="warn"), {}, [ChangedTool("files", "read", ("title",))])
    assert [(row["served_as"], row["state"]) for row in table["tools"]] == [("read", "changed")]


def test_a_backend_whose_tools_are_served_as_they_are_has_no_table() -> None:
    assert curation_table(backends(pin="off"), {}, []) == []


def test_no_more_rows_than_fit_and_how_many_are_left_out() -> None:
    seen = {"files": {f"tool{number}": None for number in range(MOST_ROWS + 5)}}
    changed = [ChangedTool("files", f"tool{MOST_ROWS + 4}", ("title",))]
    (table,) = curation_table(backends(**TOOLS), seen, changed)
    assert (len(table["tools"]), table["tools"][0]["state"], table["left_out"]) == (MOST_ROWS, "waiting", 7)
