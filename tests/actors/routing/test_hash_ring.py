"""Hash ring: equal keys meet equal members in every process, and few keys move when members come and go."""

import itertools
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.routing import hash_ring
from mcp_gateway.actors.routing.hash_ring import HashRing, position_of

REPLICAS = [f"http://127.0.0.1:{port}/mcp" for port in (3001, 3002, 3003, 3004)]
KEYS = [f"session-{number}" for number in range(4_000)]


def ring_of(members, ring_size=1024):
    ring = HashRing(ring_size)
    for member in members:
        ring.add(member)
    return ring


def owners(ring):
    return {key: ring.owner(key) for key in KEYS}


def test_positions_are_fixed_for_all_time():
    """Golden vectors: a release that changed them would move every session."""
    assert position_of("") == 0xE4A6A0577479B2B4
    assert position_of("session-1") == 0xAE49BD2CD463E7AC
    assert position_of("Grüße") == 0x06AB58B78490A392


def test_owners_are_fixed_for_all_time():
    ring = ring_of(REPLICAS)
    assert [REPLICAS.index(ring.owner(f"session-{number}")) for number in range(20)] == [
        1,
        3,
        1,
        1,
        2,
        1,
        2,
        0,
        3,
        2,
        3,
        0,
        2,
        2,
        2,
        1,
        0,
        0,
        0,
        3,
    ]
    assert [REPLICAS.index(member) for member in ring.preference_list("session-0")] == [1, 3, 0, 2]


def test_another_process_finds_the_same_owner():
    code = f"""
from mcp_gateway.actors.routing.hash_ring import HashRing
ring = HashRing()
for member in {REPLICAS[::-1]!r}:
    ring.add(member)
print(ring.owner("session-1"))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout
    assert found.strip() == ring_of(REPLICAS).owner("session-1")


def test_order_of_insertion_is_irrelevant():
    expected = owners(ring_of(REPLICAS))
    for order in itertools.permutations(REPLICAS):
        assert owners(ring_of(order, 1024)) == expected


def test_removing_one_of_n_moves_exactly_its_keys_and_no_others():
    ring = ring_of(REPLICAS)
    before = owners(ring)
    ring.remove(REPLICAS[1])
    after = owners(ring)
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved == {key for key in KEYS if before[key] == REPLICAS[1]}
    assert 0.20 < len(moved) / len(KEYS) < 0.30
    assert {after[key] for key in moved} == {REPLICAS[0], REPLICAS[2], REPLICAS[3]}, "they are spread over all others"


def test_joining_takes_keys_from_all_and_gives_them_back_on_leaving():
    ring = ring_of(REPLICAS[:3])
    before = owners(ring)
    ring.add(REPLICAS[3])
    joined = owners(ring)
    assert {joined[key] for key in KEYS if before[key] != joined[key]} == {REPLICAS[3]}
    ring.remove(REPLICAS[3])
    assert owners(ring) == before


def test_keys_of_a_member_that_cannot_serve_go_where_they_would_go_without_it():
    ring, without = ring_of(REPLICAS), ring_of(REPLICAS[1:])
    for key in KEYS[:500]:
        assert next(member for member in ring.preference_list(key) if member != REPLICAS[0]) == without.owner(key)


def test_shares_are_even_and_add_up_to_the_whole():
    ring = ring_of(REPLICAS)
    shares = [ring.share(member) for member in REPLICAS]
    assert sum(shares) == pytest.approx(1.0)
    assert all(0.22 < share < 0.28 for share in shares)
    assert ring_of(REPLICAS[:1]).share(REPLICAS[0]) == 1.0


def test_an_empty_ring_has_no_owner():
    ring = HashRing()
    assert ring.owner("key") is None
    assert list(ring.preference_list("key")) == []
    with pytest.raises(KeyError):
        ring.share("nobody")


def test_joining_twice_is_joining_once_and_a_stranger_cannot_leave():
    ring = ring_of(["a", "a"])
    ring.assert_consistent()
    ring.remove("a")
    with pytest.raises(KeyError):
        ring.remove("a")
    assert ring.owner("key") is None


def test_members_on_one_position_are_told_apart_by_name_not_by_arrival(monkeypatch):
    monkeypatch.setattr(hash_ring, "position_of", lambda text: len(text.rpartition("#")[0]) % 2)
    for order in itertools.permutations(["b", "aa", "a", "bb"]):
        ring = ring_of(order, 4)
        ring.assert_consistent()
        assert list(ring.preference_list("##")) == ["a", "b", "aa", "bb"]
        ring.remove("a")
        ring.assert_consistent()
        assert ring.owner("##") == "b"


def test_keys_of_any_text_have_an_owner():
    ring = ring_of(["a"])
    assert ring.owner("\ud800\x00🦊") == "a"


def test_finding_an_owner_takes_microseconds():
    """About 7 us on a slow core; the bound leaves room for a busy machine."""
    ring = ring_of(REPLICAS)
    started_s = time.thread_time()
    for key in KEYS:
        ring.owner(key)
    assert (time.thread_time() - started_s) / len(KEYS) < 100e-6


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=20),
    keys=st.lists(st.text(max_size=8), min_size=1, max_size=10),
)
def test_any_history_ends_where_its_members_alone_would(steps, keys):
    ring, members = HashRing(8), set()
    for is_joining, member in steps:
        before = {key: ring.owner(key) for key in keys}
        if is_joining:
            ring.add(member)
            members.add(member)
        elif member in members:
            ring.remove(member)
            members.remove(member)
        ring.assert_consistent()
        for key in keys:
            assert ring.owner(key) == before[key] or (ring.owner(key) == member if is_joining else before[key] == member)
    assert ring.members == members
    fresh = ring_of(sorted(members), 8)
    for key in keys:
        preferred = list(ring.preference_list(key))
        assert preferred == list(fresh.preference_list(key))
        assert len(preferred) == len(members)
        assert set(preferred) == members
        assert ring.owner(key) == next(iter(preferred), None)
    assert sum(ring.share(member) for member in members) == pytest.approx(1.0 if members else 0.0)
