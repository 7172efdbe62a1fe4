"""Settings given by variables of the environment, put over what a file says. Pure.

`MCP_GATEWAY__GATEWAY__PORT=5000` is `port` of `[gateway]`, `MCP_GATEWAY__BACKENDS__0__NAME='"files"'` is `name` of the first of
`[[backends]]`. A value is TOML, or JSON; what is neither is a string. Names are upper case, because keys with other letters
(names of headers and variables) are values of a table that is given as a whole.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .setting_rules import SettingProblem, kind_of

PREFIX: Final = "MCP_GATEWAY__"
SOURCE: Final = "the environment"
"""What problems are said to be in where no single variable is to blame and there is no file."""

_DEEPEST: Final = 8

Path = tuple[str | int, ...]
"""The keys and indices that lead to a setting: ("backends", 0, "name")."""


def variables_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the environment that are settings."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX)}


def put_over(mapping: Mapping[str, Any], variables: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, SettingProblem]]:
    """What a TOML reader has returned, with the variables' values in their places; and what is wrong: {variable: problem}.

    A whole table or list goes first, then what is set within it. An index beyond the end of a list by one adds to it.
    """
    result = dict(mapping)
    problems: dict[str, SettingProblem] = {}
    for name in sorted(variables, key=lambda name: (len(path := path_of(name)), [_sortable(part) for part in path])):
        path = path_of(name)
        problem = _name_problem(path) or _put(result, path, value_of(variables[name]))
        if problem is not None:
            problems[name] = problem
    return result, problems


def variable_behind(key: str, variables: Iterable[str]) -> str | None:
    """The variable that has set this key, spelled as in a problem, or what it is in, or else something within it."""
    by_key = {_key(path_of(name)): name for name in variables}
    whole, shorter = key, ""
    while key not in by_key and shorter != key:
        key, shorter = re.sub(r"(?:\.[^.\[\]]+|\[\d+\])$", "", key), key
    return by_key.get(key) or next((name for inner, name in by_key.items() if inner.startswith(f"{whole}.")), None)


def names_backends(variables: Iterable[str]) -> bool:
    """Whether any of them is about backends, so that the demo server need not stand in."""
    return any(path_of(name)[0] == "backends" for name in variables)


def path_of(name: str) -> Path:
    """Where the setting of a variable is."""
    parts = name.removeprefix(PREFIX).split("__")
    return tuple(int(part) if re.fullmatch(r"[0-9]{1,5}", part) else part.lower() for part in parts)


def value_of(text: str) -> Any:
    """TOML, else JSON, else the text itself."""
    import tomllib  # here, because `serve` without a file has no use for it and start-up is measured

    if "\n" not in text and "\r" not in text:  # another line could be another key
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _sortable(part: str | int) -> tuple[int, str]:
    return (part, "") if isinstance(part, int) else (-1, part)


def _name_problem(path: Path) -> SettingProblem | None:
    if "" not in path and len(path) <= _DEEPEST:
        return None
    return SettingProblem(key="", found="this name", allowed=f"{PREFIX}TABLE__KEY, with two underscores between")


def _put(mapping: dict[str, Any], path: Path, value: Any) -> SettingProblem | None:
    """Set one value, in copies of the tables on the way; what stands in its way, where something does."""
    place: Any = mapping
    for depth, part in enumerate(path):
        problem = _wrong_step(place, path[: depth + 1])
        if problem is not None:
            return problem
        is_last = depth == len(path) - 1
        fresh = value if is_last else [] if isinstance(path[depth + 1], int) else {}
        if isinstance(place, list):
            assert isinstance(part, int)
            if part == len(place):
                place.append(fresh)
        else:
            place.setdefault(part, fresh)
        place[part] = value if is_last else copy.copy(place[part])
        place = place[part]
    return None


def _wrong_step(place: Any, path: Path) -> SettingProblem | None:
    """path: up to the step that is to be taken from this place."""
    part, key = path[-1], _key(path[:-1])
    if isinstance(place, list):
        if isinstance(part, int) and part <= len(place):
            return None
        return SettingProblem(key=key, found=f"{part} in the name", allowed=f"an index from 0 to {len(place)}")
    if not isinstance(place, dict):
        return SettingProblem(key=key, found=kind_of(place), allowed="a table, where a key of it is set as well")
    if isinstance(part, int):
        return SettingProblem(key=key, found=f"the index {part} in the name", allowed="the key of a table")
    return None


def _key(path: Path) -> str:
    """As problems spell it: backends[0].name."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
