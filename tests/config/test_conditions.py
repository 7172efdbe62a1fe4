"""Conditions of policies: what is an expression, what it says, and that nothing a client sends makes it slow or lets it decide by
mistake."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.conditions import MOST_VALUES, Condition, InvalidCondition, are_bounded
from mcp_gateway.config.loader import ConfigError, settings_from_mapping


def holds(text: str, **values: Any) -> bool | None:
    return Condition(text).holds(values)


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("arguments.path.startsWith('/public/')", {"path": "/public/a"}, True),
        ("arguments.path.startsWith('/public/')", {"path": "/etc"}, False),
        ("!has(arguments.force) || !arguments.force", {}, True),
        ("arguments.rows <= 100", {"rows": 100}, True),
        ("arguments.rows <= 100", {"rows": 100.5}, False),
        ("arguments.rows <= 100", {"rows": 2**70}, False),
        ("arguments.tags.all(tag, tag in ['a', 'b'])", {"tags": ["a", "b"]}, True),
        ("arguments.tags.all(tag, tag in ['a', 'b'])", {"tags": ["a", "c"]}, False),
    ],
)
def test_a_condition_says_whether_arguments_are_as_it_wants_them(text: str, arguments: Any, expected: bool) -> None:
    assert holds(text, arguments=arguments) is expected


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("arguments.path.startsWith('/')", {}),
        ("arguments.path.startsWith('/')", {"path": 5}),
        ("arguments.rows <= 100", {"rows": "5"}),
        ("arguments.path", {"path": "true"}),
        ("arguments.rows", {"rows": 1}),
        ("1 / arguments.rows == 1", {"rows": 0}),
        ("arguments.rows + 9223372036854775807 > 0", {"rows": 5}),
        ("arguments.path.matches(arguments.path)", {"path": "["}),
        ("arguments.list[arguments.at] == 1", {"list": [1], "at": -1}),
        ("arguments.path == 'a'", {"path": "\ud800"}),
    ],
)
def test_what_cannot_be_said_is_neither_true_nor_false(text: str, arguments: Any) -> None:
    assert holds(text, arguments=arguments) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("arguments.path ==", r"line 1, column \d+: mismatched input '<EOF>'"),
        ("true &&\n  (", r"line 2, column \d+: "),
        ("argument.path == 'a'", "^argument is not known"),
        ("arguments.path.startswith('a')", "^startswith is not known"),
        ("now() < timestamp('2030-01-01T00:00:00Z')", "^now is not known"),
        ("arguments.a.all(x, arguments.b.exists(y, x == y))", "line 1, column 31: a loop within a loop"),
        ("arguments.a.all(x,\n [1] . map (y, y) == [x])", "line 2, column 6: a loop within a loop"),
        ("(" * 200 + "true" + ")" * 200, r"line 1, column \d+"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(InvalidCondition, match=why):
        Condition(text)


@pytest.mark.parametrize(
    "text",
    [
        "arguments.a.all(x, x > 1) && arguments.b.exists(y, y == 2)",
        "arguments.a.map(x, x + 1).all(x, x > 1)",
        "arguments.a.all(x, x != '.all(y, y)')",
        "arguments.a.all(x, x != r'\\' && x != \".map(\")",
        "arguments.a.all(x, x != '''.map('it's''') // .all(",
        "arguments.a.all(x, x != '\\'.map(')",
    ],
)
def test_loops_beside_each_other_and_in_strings_are_none_within_another(text: str) -> None:
    Condition(text)


def test_a_wrong_condition_is_an_error_of_the_configuration() -> None:
    with pytest.raises(
        ConfigError, match=r"policies\[1\]\.when: found 'arguments\.a =='.*line 1, column.*allowed: an expression in CEL"
    ):
        settings_from_mapping({"policies": [{"effect": "allow"}, {"effect": "deny", "when": "arguments.a =="}]}, "f")
    with pytest.raises(ConfigError, match=r"of up to 4000 characters"):
        settings_from_mapping({"policies": [{"effect": "allow", "when": "true" + " " * 4000}]}, "f")


def test_arguments_are_bounded_in_number_and_depth() -> None:
    assert are_bounded({"a": list(range(MOST_VALUES - 1))})
    assert not are_bounded({"a": list(range(MOST_VALUES))})
    assert not are_bounded({"a": [{"b": 1}] * (MOST_VALUES // 2)})
    for depth, expected in ((63, True), (500, False)):
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        assert are_bounded({"a": nested}) is expected


@pytest.mark.parametrize(
    "text",
    [
        "arguments.a.all(x, x in arguments.a)",
        "arguments.a.map(x, x).map(x, x).map(x, x).all(x, x >= 0)",
        "arguments.a.all(x, string(x).matches('^(0|[1-9]+)+$'))",
        "arguments.a.all(x, arguments.a == arguments.a)",
    ],
)
def test_the_most_arguments_that_are_looked_at_take_no_time(text: str) -> None:
    """Of the processor: tens of milliseconds on a machine of its own."""
    arguments = {"a": list(range(MOST_VALUES - 1))}
    started_s = time.thread_time()
    assert holds(text, arguments=arguments) in (True, False)
    assert time.thread_time() - started_s < 1.0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_CONDITIONS = [
    Condition(text)
    for text in (
        "arguments.a == 1",
        "arguments.a.startsWith('a')",
        "arguments.a.all(x, x > 0)",
        "arguments.a + arguments.b > arguments['c']",
        "size(arguments.a) < 3 || arguments.a.b.c",
        "timestamp(arguments.a) < timestamp('2030-01-01T00:00:00Z')",
    )
]


@given(arguments=st.dictionaries(st.sampled_from("abc"), _json), condition=st.sampled_from(_CONDITIONS))
def test_any_arguments_end_in_an_answer(arguments: Any, condition: Condition) -> None:
    assert condition.holds({"arguments": arguments}) in (True, False, None)


@given(st.text("arguments.x(){}[]'\"\\/&|!=,1 \n", max_size=40))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        Condition(text)
    except InvalidCondition as problem:
        assert "\n" not in str(problem)
