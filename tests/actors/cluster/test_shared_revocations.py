"""Who has lost access, in all nodes alike, whatever nodes and engine do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.record_format import FORMAT
from mcp_gateway.actors.cluster.shared_revocations import (
    RevocationChange,
    SharedRevocations,
    change_between,
    read_revocations,
    sealed_revocations,
)
from mcp_gateway.config.identity_settings import LogOut, Revocations
from tests.doubles.patience import until

CIPHER = packet_cipher(b"s" * 32)
KEY = "shared.revocations"


def subjects(*names: str) -> Revocations:
    return Revocations(subjects=names)


def revoked(*names: str) -> RevocationChange:
    return RevocationChange(added=subjects(*names))


class Node:
    """What one node refuses, as it is told."""

    def __init__(self, hub: MemoryHub, own: Revocations) -> None:
        self.engine = MemoryEngine(hub)
        self.refused = own
        self.told: list[Revocations] = []
        self.shared = SharedRevocations(self.engine, CIPHER, own, self._take)
        self.running = asyncio.create_task(self.shared.run())

    def _take(self, number: int, revocations: Revocations) -> None:
        self.refused = revocations
        self.told.append(revocations)

    def refuses(self, *names: str) -> Callable[[], bool]:
        return lambda: set(self.refused.subjects) == set(names)


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))  # type: ignore[arg-type]


def test_what_one_node_refuses_all_refuse_and_what_it_takes_back_all_take_back() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub, subjects()), Node(hub, subjects())
        await a.shared.change(revoked("ann"))
        await b.shared.change(revoked("bob"))
        for node in (a, b):
            await until(node.refuses("ann", "bob"))
        await b.shared.change(RevocationChange(removed=subjects("ann")))
        for node in (a, b):
            await until(node.refuses("bob"))

    run(test())


def test_nodes_that_each_come_with_their_own_refuse_all_of_them() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub, subjects("ann")), Node(hub, subjects("bob"))
        for node in (a, b):
            await until(node.refuses("ann", "bob"))

    run(test())


def test_what_is_revoked_while_the_engine_is_away_is_never_forgotten_and_reaches_the_others_later() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub, subjects()), Node(hub, subjects())
        await a.shared.change(revoked("first"))
        await until(b.refuses("first"))
        hub.cut_off.add(a.engine)
        waiting = a.shared.change(revoked("ann"))
        await b.shared.change(revoked("bob"))
        await until(b.refuses("first", "bob"))
        assert not waiting.done()
        a.told.clear()
        hub.cut_off.clear()
        await waiting
        for node in (a, b):
            await until(node.refuses("first", "ann", "bob"))
        assert all("ann" in told.subjects for told in a.told)

    run(test())


def test_after_the_engine_has_lost_the_key_nobody_has_access_again() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub, subjects()), Node(hub, subjects())
        await a.shared.change(revoked("ann"))
        await until(b.refuses("ann"))
        hub.put(KEY, None, None)
        await b.shared.change(revoked("bob"))
        for node in (a, b):
            await until(node.refuses("ann", "bob"))

    run(test())


def test_an_older_state_that_somebody_puts_back_gives_nobody_access() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub, subjects()), Node(hub, subjects())
        await a.shared.change(revoked("ann"))
        old = hub.keys[KEY][0].value
        await a.shared.change(revoked("bob"))
        await until(b.refuses("ann", "bob"))
        for value in (old, b"rubbish", sealed_revocations(packet_cipher(b"t" * 32), 99, subjects())):
            hub.put(KEY, value, None)
            await asyncio.sleep(0.05)
            assert b.refuses("ann", "bob")()
        await b.shared.change(revoked("eve"))
        for node in (a, b):
            await until(node.refuses("ann", "bob", "eve"))

    run(test())


def as_written(number: int, fields: dict[str, Any], version: int) -> bytes:
    """As another version writes the key."""
    nonce = b"n" * 12
    text = msgspec.json.encode([number, fields, version, "a field of tomorrow"])
    return nonce + CIPHER.encrypt(nonce, text, KEY.encode())


def test_what_another_version_says_besides_is_nothing_to_this_one() -> None:
    fields = {"subjects": ["ann"], "a field of tomorrow": [1]}
    assert read_revocations(CIPHER, as_written(7, fields, FORMAT)) == (7, subjects("ann"))


def test_revocations_that_a_newer_version_has_written_are_not_overwritten(caplog: pytest.LogCaptureFixture) -> None:
    """They hold what this one cannot write again."""

    async def test() -> None:
        hub = MemoryHub()
        newer = as_written(7, {"sets of subjects": ["all"]}, FORMAT + 1)
        hub.put(KEY, newer, None)
        node = Node(hub, subjects("ann"))
        await until(lambda: any("hold at this node alone" in message for message in caplog.messages))
        assert hub.keys[KEY][0].value == newer
        assert any("is not known here: a newer version" in message for message in caplog.messages)
        assert node.told == []

    run(test())


def test_the_key_is_read_as_it_was_written_by_nodes_of_the_cluster_alone() -> None:
    log_out = LogOut(issuer="https://i", subject="ann", issued_ms=5, token_id="t")
    revocations = Revocations(subjects=("x",), fingerprints=("0" * 32,), log_outs=(log_out,))
    value = sealed_revocations(CIPHER, 7, revocations)
    assert read_revocations(CIPHER, value) == (7, revocations)
    assert read_revocations(packet_cipher(b"t" * 32), value) is None
    assert read_revocations(CIPHER, value[:-1]) is None


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_a_change_makes_the_one_of_the_other(before: set[str], after: set[str]) -> None:
    one, other = subjects(*sorted(before)), subjects(*sorted(after))
    assert set(change_between(one, other).applied_to(one).subjects) == after
