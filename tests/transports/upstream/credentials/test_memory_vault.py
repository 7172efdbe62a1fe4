"""The vault of a gateway without a state directory."""

from __future__ import annotations

from mcp_gateway.transports.ports.credential_vault import EntryId, EntryKind
from mcp_gateway.transports.upstream.credentials.memory_vault import MemoryVault

NOW_MS = 1_000


def entry(number: int) -> EntryId:
    return EntryId(EntryKind.FLOW, str(number), "")


def test_what_has_an_end_is_read_before_it_and_taken_once() -> None:
    vault = MemoryVault()
    vault.write(entry(1), b"a", NOW_MS, NOW_MS + 10)
    assert vault.read(entry(1), NOW_MS + 9) == b"a"
    assert vault.read(entry(1), NOW_MS + 10) is None
    assert [vault.take(entry(1), NOW_MS), vault.take(entry(1), NOW_MS)] == [b"a", None]


def test_what_is_over_makes_room_and_then_what_was_written_first() -> None:
    vault = MemoryVault(most_entries=2)
    vault.write(entry(1), b"a", NOW_MS)
    vault.write(entry(2), b"b", NOW_MS, NOW_MS + 1)
    vault.write(entry(3), b"c", NOW_MS + 1)
    assert [vault.read(entry(number), NOW_MS) for number in (1, 2, 3)] == [b"a", None, b"c"]
    vault.write(entry(4), b"d", NOW_MS)
    assert [vault.read(entry(number), NOW_MS) for number in (1, 3, 4)] == [None, b"c", b"d"]
    assert len(vault) == 2


def test_one_renews_at_a_time() -> None:
    vault = MemoryVault()
    assert not vault.lease(entry(1), NOW_MS + 10, NOW_MS)
    vault.write(entry(1), b"a", NOW_MS)
    assert [vault.lease(entry(1), NOW_MS + 10, at_ms) for at_ms in (NOW_MS, NOW_MS + 9, NOW_MS + 10)] == [True, False, True]
    vault.write(entry(1), b"b", NOW_MS)
    assert vault.lease(entry(1), NOW_MS + 10, NOW_MS)
    vault.release(entry(1))
    assert vault.lease(entry(1), NOW_MS + 10, NOW_MS)
