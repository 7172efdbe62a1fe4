"""Everything at once, beside an ordinary client: nobody else notices, and nothing piles up."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest

from tests.attacks.attack import Attack
from tests.attacks.catalogue import CLIENT_ATTACKS
from tests.attacks.finding import MEGABYTE
from tests.attacks.place import Place, descriptor_count, memory_bytes, thread_count
from tests.attacks.surroundings import among_hostile_clients
from tests.end_to_end.running_gateway import Form, wait_until

SEED = 11
AT_ONCE = 4
MOST_MEMORY_BYTES = 60 * MEGABYTE
"""Above what there was before: of all attacks together, while they go on and with what sessions and events are kept by then."""
LEAST_TRIES = 21
"""However slow the machine is: fewer say nothing."""
MOST_FILES = 16
"""More than before: databases grow in place."""
MOST_THREADS = 32
"""More than before: what looks names up and writes files has a few, which stay."""


@pytest.mark.parametrize("form", ["embedded", "two cells"])
@pytest.mark.parametrize(
    "minutes",
    [pytest.param(30.0, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]), pytest.param(0.3, marks=pytest.mark.timeout(300))],
)
def test_mixed_abuse_leaves_memory_descriptors_threads_series_and_files_as_before(
    form: Form, minutes: float, tmp_path: Path
) -> None:
    """The short form is what CI runs; the long one, with -m slow, is the promise."""
    with among_hostile_clients(tmp_path, form) as place:
        gateway = place.gateway
        abuse(place, 5.0)  # what is made once is made
        memory, descriptors, threads = memory_bytes(gateway), descriptor_count(gateway), thread_count(gateway)
        series, files = len(gateway.metrics()), file_count(gateway.state_dir)
        began_s = time.monotonic()
        ends = abuse(place, minutes * 60, LEAST_TRIES)
        place.assert_unharmed(began_s)
        assert sum(ends.values()) > 20, ends
        assert {end for end in ends if not end.is_expected} == set()

        def is_as_before() -> bool:
            return (
                memory_bytes(gateway) < memory + MOST_MEMORY_BYTES
                and descriptor_count(gateway) < descriptors + 30
                and thread_count(gateway) <= threads + MOST_THREADS
                and len(gateway.metrics()) < series + 300
            )

        wait_until(is_as_before, 60, f"more than {memory=}, {descriptors=}, {threads=} or {series=} of before")
        assert file_count(gateway.state_dir) <= files + MOST_FILES


USED_UP_BY_OTHERS = ("too_many_connections", "rate_limited", "pool_exhausted", "upstream_timeout")
"""What an attacker may read here beside what it reads alone: what all share, and the one server that asks, may have enough to do
with another."""


@attrs.frozen
class End:
    """How one try of an attack ended. read: what its attacker read, or what was wrong."""

    attack: str
    transport: str
    read: str
    is_expected: bool


def abuse(place: Place, for_s: float, at_least: int = 0) -> Counter[End]:
    """Attacks at random, some at once, each from an address of its own: {how they ended: how often}.

    They go on for that time, and until so many have ended.
    """
    dice = random.Random(SEED)
    attacks = [each for each in CLIENT_ATTACKS if place.gateway.form in each.forms]
    ends: Counter[End] = Counter()
    until_s = time.monotonic() + for_s

    async def keep_attacking() -> None:
        while time.monotonic() < until_s or sum(ends.values()) < at_least:
            attack = dice.choice(attacks)
            await once(attack, dice.choice(attack.over))

    async def once(attack: Attack, transport: str) -> None:
        async with place.arena() as arena:
            try:
                async with asyncio.timeout(40):
                    read = await attack.attempt(arena, transport)
            except Exception as problem:
                is_refused = getattr(problem, "status", 0) == 503  # before there was a connection
                read = "too_many_connections" if is_refused else f"{type(problem).__name__}: {str(problem)[:300]}"
        ends[End(attack.name, transport, read, read in (*attack.reads, *USED_UP_BY_OTHERS))] += 1

    async def all_of_them() -> None:
        await asyncio.gather(*(keep_attacking() for _ in range(AT_ONCE)))

    asyncio.run(all_of_them())
    return ends


def file_count(directory: Path) -> int:
    return sum(1 for path in directory.rglob("*") if path.is_file())
