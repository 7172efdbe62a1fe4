"""Rules and readings that settings of several tables share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from .setting_rules import InvalidSetting, Number, SettingProblem, Text, quote_url

_ONE_WEEK_S = 604_800.0
_SHORTEST_S = 0.01  # below that, an interval is a busy loop
DURATION = Number(_SHORTEST_S, _ONE_WEEK_S)
DURATION_OR_OFF = Number(_SHORTEST_S, _ONE_WEEK_S, zero_means="off")
DURATION_OR_AT_ONCE = Number(_SHORTEST_S, _ONE_WEEK_S, zero_means="do not wait")
NAME = Text(r"[A-Za-z][A-Za-z0-9_-]*", "a letter, then letters, digits, - and _, 64 characters at most", longest=64)
PATH = Text(r"[^\x00\ud800-\udfff]*", "a path", longest=4_096)
WEB_URL = Text(
    r"|https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?][^\s#\x00-\x1f\x7f\ud800-\udfff]*)?",
    "an http or https URL without user and fragment, or an empty string",
    longest=2_000,
    show=quote_url,
)
LINE = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]*", "a string on one line", longest=1_000)
# Source: RFC 6749, section 3.3, scope-token.
SCOPE = Text(r"[\x21\x23-\x5b\x5d-\x7e]+", "a scope: printable ASCII without space, quotation mark and backslash", longest=200)


def as_seconds(value: float) -> float:
    """Take 5 for 5.0; leave anything else for the rule to judge."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    return value


def as_tuple(value: Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]


def as_dict(value: Mapping[str, str]) -> dict[str, str]:
    return dict(value) if isinstance(value, Mapping) else value


def fields_of(settings: attrs.AttrsInstance) -> dict[str, Any]:
    return attrs.asdict(settings, recurse=False)


def raise_first(problems: Iterator[SettingProblem]) -> None:
    for problem in problems:
        raise InvalidSetting(problem)


def split_sources(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))
