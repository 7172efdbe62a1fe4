"""What a run is made of: a scenario file, with the options of the command line over it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from .fault_kinds import CLUSTER, EMBEDDED, FAULTS, KINDS, NODE, FaultKind

CLUSTER_EACH_S: Final = 10.0
"""A cluster takes as long to miss a node: faults at shorter distances would meet it broken every time."""


class ScenarioInvalid(Exception):
    """The text says what is wrong with it."""


def _positive(_scenario: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if value <= 0:
        raise ScenarioInvalid(f"{attribute.name}: found {value}; allowed: more than 0")


@attrs.frozen(kw_only=True)
class Scenario:
    """One run.

    seconds: of load, beside what starting and ending take. faults: names of kinds; () is all of them.
    each_s:  a fault begins every so many seconds on average, CLUSTER_EACH_S in a cluster. clients: of each kind.
    pause_s: of a client between two calls.
    patience: how many times longer than on a machine of its own recovery may take.
    recovers_s: {fault: seconds} where recovery may take another time than its kind says.
    """

    seconds: float = attrs.field(default=60.0, validator=_positive)
    seed: int = 1
    form: str = NODE
    cells: int = attrs.field(default=2, validator=_positive)
    faults: tuple[str, ...] = ()
    each_s: float = attrs.field(default=4.0, validator=_positive)
    clients: int = attrs.field(default=2, validator=_positive)
    pause_s: float = attrs.field(default=0.2, validator=_positive)
    patience: float = attrs.field(default=1.0, validator=_positive)
    recovers_s: dict[str, float] = attrs.field(factory=dict)

    def kinds(self, *, is_root: bool, has_namespaces: bool) -> tuple[FaultKind, ...]:
        """The kinds of faults that exist for this form and may be brought about here."""
        wanted = self.faults or tuple(kind.name for kind in FAULTS)
        return tuple(
            kind
            for kind in FAULTS
            if kind.name in wanted and self.form in kind.forms and (not kind.needs_root or (is_root and has_namespaces))
        )


def read_scenario(path: Path | None, given: Mapping[str, Any]) -> Scenario:
    """given: what the command line says; None where it says nothing.

    Raises: ScenarioInvalid
    """
    try:
        table: dict[str, Any] = {} if path is None else tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ScenarioInvalid(f"{path}: {error}") from error
    fields = attrs.fields_dict(Scenario)
    if unknown := sorted(table.keys() - fields.keys()):
        raise ScenarioInvalid(f"{', '.join(unknown)}: unknown; there are {', '.join(fields)}")
    table |= {name: value for name, value in given.items() if value is not None}
    if table.get("form") == CLUSTER:
        table.setdefault("each_s", CLUSTER_EACH_S)
    recovers_s = table.pop("recovers_s", {})
    if not isinstance(recovers_s, dict):
        raise ScenarioInvalid(f"recovers_s: found {recovers_s!r}; allowed: a table")
    for name, value in table.items():
        _check_kind(name, value, fields[name].default)
    faults = tuple(table.pop("faults", ()))
    for where, names in (("faults", set(faults)), ("recovers_s", recovers_s.keys())):
        if missing := sorted(names - KINDS.keys()):
            raise ScenarioInvalid(f"{where}: there is no {', '.join(missing)}; there are {', '.join(KINDS)}")
    for name, value in recovers_s.items():
        _check_kind(f"recovers_s.{name}", value, 1.0)
        if value <= 0:
            raise ScenarioInvalid(f"recovers_s.{name}: found {value}; allowed: more than 0")
    if table.get("form", NODE) not in (forms := (NODE, EMBEDDED, CLUSTER)):
        raise ScenarioInvalid(f"form: found {table['form']!r}; allowed: {', '.join(forms)}")
    return Scenario(**table, faults=faults, recovers_s=recovers_s)


def _check_kind(name: str, value: object, default: object) -> None:
    """Raises: ScenarioInvalid where it is not of the kind of the default."""
    allowed: tuple[type, ...] = (list, tuple) if isinstance(default, tuple) else (type(default),)
    if isinstance(default, float):
        allowed = (int, float)
    if not isinstance(value, allowed) or isinstance(value, bool):
        raise ScenarioInvalid(f"{name}: found {value!r}; allowed: {' or '.join(each.__name__ for each in allowed)}")
