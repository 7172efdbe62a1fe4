"""Settings of what is served of a backend's tools: `tools` of `[[backends]]`. Rules as in `settings`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .common_rules import WEB_URL
from .setting_rules import Each, Number, OneOf, Rule, SettingProblem, Table, Text, Whole, kind_of, name_part, quote

NAME_FORMS: Final = ("portable", "as_is")
PIN_MODES: Final = ("off", "warn", "enforce")
_MOST: Final = 1_000
_MOST_VALUE_BYTES: Final = 65_536
_OWN_NAME: Final = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "the name of a tool", longest=1_000)
_PATTERNS: Final = Each(
    Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "the name of a tool, or a pattern such as read_*", longest=200), most=_MOST
)
_PROSE: Final = Text(r"[^\x00\ud800-\udfff]*", "a text", longest=16_384)


class Named(Rule):
    """A table of up to `_MOST` keys, each the name of a tool or argument, whose values keep a rule."""

    def __init__(self, value: Rule) -> None:
        self.value = value
        self.allowed = f"a table of {value.allowed}"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, Mapping):
            yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)
        elif len(value) > _MOST:
            yield SettingProblem(key=key, found=f"{len(value)} entries", allowed=f"up to {_MOST} entries")
        else:
            for name, each in value.items():
                where = f"{key}.{name_part(name)}"
                yield from _OWN_NAME.problems(where, name)
                yield from self.value.problems(where, each)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.value.json_schema(), "maxProperties": _MOST}


class Renames(Named):
    """{name at the server: name here}; no two tools may be called alike."""

    def __init__(self) -> None:
        # Source: MCP 2025-11-25, server/tools, "Tool Names".
        super().__init__(Text(r"[A-Za-z0-9_.-]+", "letters, digits, _ - and ., 128 characters at most", longest=128))

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        wrong = list(super().problems(key, value))
        yield from wrong
        taken: dict[str, str] = {}
        for own, here in value.items() if isinstance(value, Mapping) and not wrong else ():
            if taken.setdefault(here, own) != own:
                allowed = f"a name of its own ({name_part(taken[here])} has it)"
                yield SettingProblem(key=f"{key}.{name_part(own)}", found=quote(here), allowed=allowed)


class JsonValue(Rule):
    """What an argument may be: anything of JSON, of a reasonable size."""

    allowed = f"a value that JSON has, {_MOST_VALUE_BYTES} bytes at most"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        try:
            if len(json.dumps(value, allow_nan=False)) <= _MOST_VALUE_BYTES:
                return
        except (TypeError, ValueError, RecursionError):
            pass
        yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {}


_VALUES: Final = Named(JsonValue())
_OVERRIDE: Final = Table(title=_PROSE, description=_PROSE, annotations=_VALUES, defaults=_VALUES, fixed=_VALUES)


class GuardRule(Table):
    """`guard`: who is asked, over HTTP or in this process, and what follows where there is no answer."""

    def __init__(self) -> None:
        super().__init__(
            url=WEB_URL,
            callable=Text(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", "module:function", longest=500),
            deadline=Number(0.01, 60.0),
            fail=OneOf("closed", "open"),
            phases=Each(OneOf("before", "after"), fewest=1, most=2),
        )

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        yield from super().problems(key, value)
        if isinstance(value, Mapping):
            named = [name for name in ("url", "callable") if value.get(name)]
            if len(named) != 1:
                yield SettingProblem(key=key, found=" and ".join(named) or "neither", allowed="one of url, callable")


TOOLS: Final = Table(
    allow=_PATTERNS,
    deny=_PATTERNS,
    rename=Renames(),
    names=OneOf(*NAME_FORMS),
    pin=OneOf(*PIN_MODES),
    check=Each(OneOf("arguments", "results"), most=2),
    max_result_bytes=Whole(0, 1_073_741_824),
    guard=GuardRule(),
    overrides=Named(_OVERRIDE),
)
"""allow, deny: patterns of the tools that are served, by the server's own names; all where none is allowed, and "deny" wins.
rename:     {name at the server: name here}.
names:      "portable": no longer than 64 characters with the prefix, of letters, digits, "_" and "-"; "as_is": the server's.
pin:        what follows when a tool is not what it was when it was approved: nothing, an alert, or that it is not served either.
check:      what is held against the schemas that tools have: "arguments", "results".
max_result_bytes: of a result; a larger one is cut, and says so. 0: any.
guard:      {"url" or "callable": who is asked before and after each call; deadline: seconds; fail: "closed" refuses what it gives
            no answer for, "open" lets it pass; phases: "before", "after"}.
overrides:  {name at the server: {title, description: instead of the server's; annotations: beside it; defaults: {argument: value
            where the client gives none}; fixed: {argument: value in any case, which the schema does not show}}}.
"""


def as_tools(value: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is empty: it says nothing."""
    if not isinstance(value, Mapping):
        return value
    return {name: tuple(each) if isinstance(each, list) else each for name, each in value.items() if each not in ([], (), {}, "")}
