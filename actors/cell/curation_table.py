"""What is served of each server's tools and as what, as rows for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mcp_gateway.actors.storage.pin_file import ChangedTool
from mcp_gateway.config.backend_settings import BackendSettings

MOST_ROWS: Final = 200
"""Of a backend; those that wait for somebody come first."""
_RULES: Final = ("allow", "deny", "pin", "check", "guard", "max_result_bytes")


def curation_table(
    backends: Iterable[BackendSettings], seen: Mapping[str, Mapping[str, str | None]], changed: Sequence[ChangedTool]
) -> list[dict[str, Any]]:
    """Of the backends whose tools are not simply served as they are:

    [{"backend", "rules": {key of `tools`: value in words}, "tools": [{"tool", "served_as", "state", "why"}], "left_out": count}]

    seen:  {backend: {tool as its server calls it: what it is served as, or None}}, as lists have shown so far.
    state: "waiting" for approval, "changed" and served all the same, "hidden", "renamed" or "edited"; why: in words.
    """
    tables = []
    for backend in backends:
        tools, listed = backend.tools, seen.get(backend.name, {})
        waiting = {each.tool: each.members for each in changed if each.backend == backend.name}
        names = {*listed, *waiting, *tools.get("rename", {}), *tools.get("overrides", {})}
        rows = [_row(name, tools, listed, waiting.get(name, ())) for name in sorted(names)]
        rows.sort(key=lambda row: row["state"] not in ("waiting", "changed"))
        rules = {key: _in_words(tools[key]) for key in _RULES if tools.get(key) and tools[key] != "off"}
        if rows or rules:
            left_out = max(0, len(rows) - MOST_ROWS)
            tables.append({"backend": backend.name, "rules": rules, "tools": rows[:MOST_ROWS], "left_out": left_out})
    return tables


def _row(name: str, tools: Mapping[str, Any], listed: Mapping[str, str | None], members: Sequence[str]) -> dict[str, Any]:
    here = listed.get(name, tools.get("rename", {}).get(name, name))
    row = {"tool": name, "served_as": here or "", "why": ""}
    if members:
        is_enforced = tools.get("pin") == "enforce"
        return {**row, "state": "waiting" if is_enforced else "changed", "why": f"{', '.join(members)} changed"}
    if here is None:
        return {**row, "state": "hidden", "why": "by allow and deny, or another tool has its name"}
    if name in tools.get("overrides", {}):
        return {**row, "state": "edited", "why": f"{', '.join(tools['overrides'][name])} overridden"}
    return {**row, "state": "renamed"}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("callable") or value.get("url") or "yes")
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
