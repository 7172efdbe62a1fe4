"""What may be said of a backend's tools."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.tool_settings import TOOLS, as_tools


def problems(value: object) -> list[str]:
    return [str(each) for each in TOOLS.problems("tools", value)]


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"allow": ["read_*"], "deny": [], "rename": {"a.b": "c"}, "names": "as_is"},
        {"overrides": {"read": {"title": "", "description": "x\ny", "annotations": {"readOnlyHint": True}}}},
        {"overrides": {"read": {"defaults": {"n": 1}, "fixed": {"a": [{"b": None}], "c": 1.5}}}},
    ],
)
def test_what_may_be_said(value: dict[str, Any]) -> None:
    assert problems(value) == []


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"alow": []}, "tools.alow"),
        ({"rename": {"a": "x y"}}, "tools.rename.a"),
        ({"rename": {"a": "x", "b": "x"}}, "tools.rename.b"),
        ({"rename": {"": "x"}}, "tools.rename.''"),
        ({"rename": {f"t{number}": f"u{number}" for number in range(1_001)}}, "tools.rename"),
        ({"names": "short"}, "tools.names"),
        ({"overrides": {"read": {"summary": "x"}}}, "tools.overrides.read.summary"),
        ({"overrides": {"read": {"fixed": {"a": float("nan")}}}}, "tools.overrides.read.fixed.a"),
        ({"overrides": {"read": {"fixed": {"a": "x" * 70_000}}}}, "tools.overrides.read.fixed.a"),
        ({"overrides": {"read": {"description": "x" * 16_385}}}, "tools.overrides.read.description"),
        ({"overrides": []}, "tools.overrides"),
    ],
)
def test_what_may_not_is_named_with_its_key(value: dict[str, Any], key: str) -> None:
    (problem,) = problems(value)
    assert problem.startswith(f"{key}: ")


def test_what_is_empty_says_nothing() -> None:
    assert as_tools({"allow": [], "rename": {}, "deny": ["x"]}) == {"deny": ("x",)}


def test_the_separator_stands_between_a_backends_name_and_its_tools() -> None:
    assert BackendSettings(name="files", builtin="demo", separator="-").prefix == "files-"
    assert BackendSettings(name="files", builtin="demo", separator="-", prefix="f_").prefix == "f_"


@pytest.mark.parametrize(
    ("guard", "key"),
    [
        ({"url": "http://127.0.0.1:9/x"}, None),
        ({"callable": "a.b:c", "deadline": 0.5, "fail": "open", "phases": ["after"]}, None),
        ({}, "tools.guard"),
        ({"url": "http://a/", "callable": "a:b"}, "tools.guard"),
        ({"callable": "a.b"}, "tools.guard.callable"),
        ({"callable": "a:b", "deadline": 0}, "tools.guard.deadline"),
        ({"callable": "a:b", "fail": "shut"}, "tools.guard.fail"),
        ({"callable": "a:b", "phases": []}, "tools.guard.phases"),
    ],
)
def test_a_guard_is_one_function_or_one_address(guard: dict[str, Any], key: str | None) -> None:
    found = problems({"guard": guard})
    assert (found == []) if key is None else found[0].startswith(f"{key}: ")
