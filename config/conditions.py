"""Conditions of policies in CEL, the Common Expression Language: compiled once, evaluated within bounds. Pure.

What a client sends decides how long an evaluation takes, and nothing else runs meanwhile: so arguments are bounded, and a loop
(`all`, `exists`, `map`, `filter`) has no other one in it, which would take their square.

Source: CEL language definition 0.24, "Macros" and "Evaluation"; the bounds are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from .setting_rules import Rule, SettingProblem, quote

if TYPE_CHECKING:
    import cel

VARIABLES: Final = (
    *("subject", "issuer", "client", "groups", "scopes"),
    *("method", "backend", "tool", "prompt", "resource", "topic", "arguments"),
)
"""What a condition may speak of. Names are "" where a request has none; groups and scopes are lists, arguments an object."""

MOST_ARGUMENT_BYTES: Final = 65_536
MOST_VALUES: Final = 1_000
"""In all objects and arrays of the arguments together. With more a condition is not evaluated: it fails."""
_DEEPEST: Final = 64

_LONGEST: Final = 4_000
_FUNCTIONS: Final = frozenset(
    {
        *("size", "contains", "startsWith", "endsWith", "matches", "string", "int", "uint", "double", "bytes", "type", "dyn"),
        *("duration", "timestamp", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfYear", "getDayOfWeek"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
    }
)
_PART: Final = re.compile(
    r"""(?:[rR][bB]?|[bB][rR])(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|//[^\n]*"""
    r"""|(?P<loop>\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*(?P<name>\w*))"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])""",
    re.DOTALL,
)


class InvalidCondition(ValueError):
    """The text is no condition; `str()` says why on one line, with line and column where they are known."""


class Condition:
    """One expression, ready to be evaluated.

    variables: what it speaks of; an evaluation needs no others.

    Raises: InvalidCondition.
    """

    def __init__(self, text: str) -> None:
        import cel  # a tenth of a second, which only those wait for who have conditions

        loop_names = _loop_names(text)
        try:
            self._program: cel.Program = cel.compile(text)
        except ValueError as error:
            raise InvalidCondition(_position_and_reason(str(error))) from None
        unknown = set(self._program.variables()) - {*VARIABLES, *loop_names}
        unknown |= {name for name in self._program.functions() if name.isidentifier()} - _FUNCTIONS  # others are operators
        if unknown:
            raise InvalidCondition(f"{', '.join(sorted(unknown))} is not known")
        self.variables = tuple(name for name in VARIABLES if name in self._program.variables())

    def holds(self, values: Mapping[str, Any]) -> bool | None:
        """None where that cannot be said: a member is not there, types do not fit, the outcome is no truth value."""
        try:
            outcome = self._program.execute(dict(values))
        except Exception:  # whatever the library raises: an evaluation that fails decides nothing
            return None
        except BaseException as error:  # a panic of Rust is no Exception
            if type(error).__module__ != "pyo3_runtime":
                raise
            return None
        return outcome if isinstance(outcome, bool) else None


def are_bounded(arguments: object) -> bool:
    """Whether a condition may be evaluated over these, a JSON value: not too many values, not too deep."""
    left, waiting = MOST_VALUES, [(arguments, 0)]
    while waiting:
        value, depth = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left -= len(inner)
        if left < 0 or depth > _DEEPEST:
            return False
        waiting += [(each, depth + 1) for each in inner if isinstance(each, dict | list)]
    return True


def _loop_names(text: str) -> set[str]:
    """The names that loops give to what they go through.

    Raises: InvalidCondition where one stands in another one.
    """
    names: set[str] = set()
    brackets: list[bool] = []  # whether each is that of a loop
    for part in _PART.finditer(text):
        if part["loop"] is not None:
            if any(brackets):
                line, column = text.count("\n", 0, part.start()) + 1, part.start() - text.rfind("\n", 0, part.start())
                raise InvalidCondition(f"line {line}, column {column}: a loop within a loop")
            names.add(part["name"])
            brackets.append(True)
        elif part["open"]:
            brackets.append(False)
        elif part["close"] and brackets:
            brackets.pop()
    return names


def _position_and_reason(said: str) -> str:
    """Of the library's report, which draws the place as well, its first reason."""
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", said)
    return f"line {found[1]}, column {found[2]}: {found[3][:200]}" if found else "an expression that cannot be read"


@attrs.frozen
class ConditionRule(Rule):
    """A condition, or none."""

    allowed = "an expression in CEL that is true or false, without a loop within a loop"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, str) or len(value) > _LONGEST or "\x00" in value:
            yield SettingProblem(key=key, found=quote(value), allowed=f"{self.allowed}, of up to {_LONGEST} characters")
        elif value:
            try:
                Condition(value)
            except InvalidCondition as problem:
                known = ", ".join(VARIABLES)
                yield SettingProblem(key=key, found=f"{quote(value)}: {problem}", allowed=f"{self.allowed}, over {known}")

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": _LONGEST}
