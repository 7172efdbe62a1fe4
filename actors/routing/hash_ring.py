"""A consistent hash ring: which replica owns a key, so that equal keys meet the same replica. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain

from sortedcontainers import SortedDict  # type: ignore[import-untyped]

_KEY_SPACE = 2**64


def position_of(text: str) -> int:
    """Place a key or a virtual node on the ring: 0 to 2**64 - 1, the same in every process and release.

    Python's own hash() of a string differs from process to process, and cells must agree.
    """
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class HashRing:
    """Members own the arcs of the key space that end at their virtual nodes, `ring_size` of them each.

    When a member leaves, its keys go to others and no other key moves; when one joins, it takes about 1/n of the keys.
    The order in which members joined has no effect.
    Source: Karger et al., "Consistent Hashing and Random Trees"; virtual nodes as in Dynamo, section 6.2.
    """

    __slots__ = ("_members", "_ring", "_ring_size")

    def __init__(self, ring_size: int = 1024) -> None:
        if ring_size < 1:
            raise ValueError(f"ring_size is {ring_size}, must be at least 1")
        self._ring_size = ring_size
        self._members: set[str] = set()
        # {position: members there in order of name}. Two on one position are next to impossible; order of arrival must not tell.
        self._ring: SortedDict[int, tuple[str, ...]] = SortedDict()

    @property
    def members(self) -> frozenset[str]:
        return frozenset(self._members)

    def add(self, member: str) -> None:
        """Let a member join; does nothing if it is one already."""
        if member in self._members:
            return
        self._members.add(member)
        for position in self._virtual_nodes(member):
            self._ring[position] = tuple(sorted({*self._ring.get(position, ()), member}))

    def remove(self, member: str) -> None:
        """Let a member leave. Raises KeyError if it is none."""
        self._members.remove(member)
        for position in set(self._virtual_nodes(member)):
            if others := tuple(other for other in self._ring[position] if other != member):
                self._ring[position] = others
            else:
                del self._ring[position]

    def owner(self, key: str) -> str | None:
        """The member that owns the key; None on an empty ring. Runs for every request: a hash and two bisections."""
        ring = self._ring
        if not ring:
            return None
        index = ring.bisect_left(position_of(key))
        owner: str = ring.peekitem(index if index < len(ring) else 0)[1][0]
        return owner

    def preference_list(self, key: str) -> Iterator[str]:
        """Yield every member once, the owner first, then in ring order: where to turn when the owner cannot serve.

        It is lazy: as a rule only the first member is taken. Take what is needed before the ring is changed.
        """
        if len(self._members) == 1:  # the common case needs no search
            yield from self._members
            return
        position = position_of(key)
        seen: set[str] = set()
        for node in chain(self._ring.irange(minimum=position), self._ring.irange(maximum=position, inclusive=(True, False))):
            for member in self._ring[node]:
                if member not in seen:
                    seen.add(member)
                    yield member
            if len(seen) == len(self._members):
                return

    def share(self, member: str) -> float:
        """The fraction of the key space that the member owns, 0.0 to 1.0. Raises KeyError if it is none."""
        if member not in self._members:
            raise KeyError(member)
        owned, previous = 0, self._ring.peekitem(-1)[0] - _KEY_SPACE
        for position, members in self._ring.items():
            if members[0] == member:
                owned += position - previous
            previous = position
        return owned / _KEY_SPACE

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        expected: dict[int, set[str]] = {}
        for member in self._members:
            for position in self._virtual_nodes(member):
                expected.setdefault(position, set()).add(member)
        assert dict(self._ring) == {position: tuple(sorted(members)) for position, members in expected.items()}

    def _virtual_nodes(self, member: str) -> Iterator[int]:
        return (position_of(f"{member}#{index}") for index in range(self._ring_size))
