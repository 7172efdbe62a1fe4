"""How a limit that is promised for the whole cluster is shared out among its nodes. Pure.

Of every limit each node holds a part, between 0 and 1. Every second it tells one of them, the allocator, what it holds and what
was asked of it, and is answered what it holds from then on. A part grows only by what the others are known to have given up:
whatever is lost on the way, no more is held in all than 1, or than the nodes brought with them when they came together.

Who cannot reach the allocator keeps what it holds. The allocator of other members begins with what they say they hold, and gives
nobody more before it has heard all of them; what a node held that is gone falls to the others with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

NEW_PART: Final = 0.1
"""What a node holds that has not been answered yet: it comes on top of what the others hold, for a second or two."""

KEPT_BACK: Final = 0.1
"""Of each limit, shared out evenly whatever is asked: a client that changes nodes is served at once."""

MOST_WANTED: Final = 200
"""Clients that one node reports at a time, those first that ask most."""

MOST_ROWS: Final = 500
"""Clients that have parts of their own; all others have those of `Held.default`."""

_FADING: Final = 0.5
"""What was asked a second ago counts half: a client that pauses for a moment does not lose its part."""
_NOT_WORTH: Final = 0.01
_EQUAL: Final = 1e-9


class Held(msgspec.Struct, frozen=True):
    """What one node may give out. default: of each limit that has no part of its own; parts: {client: part}."""

    default: float = NEW_PART
    parts: dict[str, float] = {}

    def of(self, client: str) -> float:
        return self.parts.get(client, self.default)


class Demand:
    """What clients ask of one node, as it reports it."""

    def __init__(self) -> None:
        self._now: dict[str, float] = {}
        self._wanted: dict[str, float] = {}

    def asked(self, wanted: Mapping[str, float]) -> None:
        """A cell was asked for so much, {client: parts of its limit per second}."""
        for client, part in wanted.items():
            self._now[client] = self._now.get(client, 0.0) + part

    def next_report(self) -> dict[str, float]:
        """Of the second that ends now, {client: parts of its limit}; MOST_WANTED at most."""
        faded = {client: part * _FADING for client, part in self._wanted.items()}
        both = {client: max(self._now.get(client, 0.0), faded.get(client, 0.0)) for client in {*self._now, *faded}}
        worth = sorted((each for each in both.items() if each[1] >= _NOT_WORTH), key=lambda each: (-each[1], each[0]))
        self._now, self._wanted = {}, dict(worth[:MOST_WANTED])
        return dict(self._wanted)


def fair_parts(wanted: Mapping[str, float], node_count: int) -> tuple[dict[str, float], float]:
    """({node: part} of those who want some of one limit, the part of every other node); of all node_count together it is 1.

    What each wants where there is so much, else evenly among those who want more. What nobody wants is shared out among all.
    Source: max-min fairness; Bertsekas and Gallager, "Data Networks", section 6.5.2.
    """
    least = KEPT_BACK / node_count
    left = 1.0 - KEPT_BACK
    parts: dict[str, float] = {}
    for count, (node, want) in enumerate(sorted(wanted.items(), key=lambda each: each[1])):
        given = min(max(want - least, 0.0), left / (len(wanted) - count))
        parts[node] = least + given
        left -= given
    spare = left / node_count
    return {node: part + spare for node, part in parts.items()}, least + spare


class _Row:
    """One limit: the most that each node may hold of it now."""

    def __init__(self, most: Mapping[str, float]) -> None:
        self.most = dict(most)
        self._total = sum(self.most.values())

    def holds(self, node: str, part: float) -> None:
        """What the node says it holds."""
        self._total += part - self.most[node]
        self.most[node] = part

    def give(self, node: str, target: float) -> float:
        """What it holds from now on: less at once, more as far as the others have left it."""
        held = self.most[node]
        free = 1.0 - (self._total - held)
        part = min(target, max(held, free))
        self.holds(node, max(held, part))
        return part

    def is_even(self, even: float) -> bool:
        self._total = sum(self.most.values())  # without what has been added up to it in error
        return all(abs(part - even) < _EQUAL for part in self.most.values())


class Allocator:
    """The one node that says who holds what, for one set of members.

    members: names, its own too.
    """

    def __init__(self, members: Iterable[str]) -> None:
        self.members = frozenset(members)
        self._even = 1.0 / len(self.members)
        self._reported: dict[str, Held] = {}
        self._wanted: dict[str, Mapping[str, float]] = {}
        self._defaults: _Row | None = None  # until all members have reported
        self._rows: dict[str, _Row] = {}  # by client
        self._targets: dict[str, tuple[Mapping[str, float], float]] = {}
        self._fresh: set[str] = set()  # have reported since the targets were found

    @property
    def row_count(self) -> int:
        return len(self._rows)

    def answer(self, node: str, held: Held, wanted: Mapping[str, float]) -> Held:
        """What this member holds from now on. held: what it holds when it asks, so that an earlier answer that it has not had
        counts no more."""
        self._reported[node], self._wanted[node] = held, wanted
        if self._reported.keys() != self.members:
            return held
        if self._defaults is None:
            self._defaults = _Row({each: reported.default for each, reported in self._reported.items()})
            for client in {client for reported in self._reported.values() for client in reported.parts}:
                self._rows[client] = _Row({each: reported.of(client) for each, reported in self._reported.items()})
            for others in self._wanted.values():
                self._add_rows(self._defaults, others)
        self._defaults.holds(node, held.default)
        for client, row in self._rows.items():
            row.holds(node, held.of(client))
        self._add_rows(self._defaults, wanted)
        if node in self._fresh or not self._fresh:
            self._find_targets(self._defaults)
        self._fresh.add(node)
        default = self._defaults.give(node, self._even)
        return Held(default, {client: row.give(node, self._target(client, node)) for client, row in self._rows.items()})

    def _target(self, client: str, node: str) -> float:
        parts, other = self._targets.get(client, ({}, self._even))
        return parts.get(node, other)

    def _add_rows(self, defaults: _Row, clients: Iterable[str]) -> None:
        for client in clients:
            if client not in self._rows and len(self._rows) < MOST_ROWS:
                self._rows[client] = _Row(defaults.most)

    def _find_targets(self, defaults: _Row) -> None:
        """Once for each round of reports; clients that ask for nothing and are held evenly need no row any more."""
        self._fresh.clear()
        by_client: dict[str, dict[str, float]] = {}
        for node, wanted in self._wanted.items():
            for client, part in wanted.items():
                by_client.setdefault(client, {})[node] = part
        self._targets = {client: fair_parts(wanted, len(self.members)) for client, wanted in by_client.items()}
        is_settled = defaults.is_even(self._even)
        for client, row in list(self._rows.items()):
            if row.is_even(self._even) and is_settled and client not in by_client:
                del self._rows[client]
