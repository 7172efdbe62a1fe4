"""How many live calls may wait for their clients' answers: in all, for one address of clients, for one backend. Pure."""

from __future__ import annotations

from collections import Counter

import attrs

from mcp_gateway.transports.ports.shared_budget import SharedBudget


@attrs.frozen(kw_only=True)
class ParkingLimits:
    """in_all counts the calls of one cell. park_s: how long a call waits for its client. rounds: questions one call may ask.

    per_client is a quarter of them, as `max_share_per_address` is by default. in_all_bytes: of their requests, which wait with
    them; a client may have a quarter of these, too.
    """

    in_all: int = 1000
    per_client: int = 250
    per_backend: int = 500
    in_all_bytes: int = 67_108_864
    rounds: int = 50
    park_s: float = 300.0


class ParkedCalls:
    """Which calls are parked now, and what they hold; and which were once and have not ended."""

    def __init__(self, limits: ParkingLimits) -> None:
        self.limits = limits
        self._calls: dict[str, tuple[str, str, int]] = {}  # {call: (address of its client, backend, bytes of its request)}
        self._bytes = SharedBudget(limits.in_all_bytes, 0.25)
        self._of_client: Counter[str] = Counter()
        self._of_backend: Counter[str] = Counter()
        self._unfinished: set[str] = set()

    @property
    def unfinished_count(self) -> int:
        """How many live on in this cell alone: those that are parked, and those whose client has answered."""
        return len(self._unfinished)

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def by_client(self) -> dict[str, int]:
        """{address of a client: how many calls wait for it}."""
        return dict(self._of_client)

    def park(self, call: str, client: str, backend: str, byte_count: int = 0) -> str:
        """Take the call in, whose request has so many bytes; gives the limit that forbids it in words, or "".

        One that is parked already stays as it is.
        """
        if call in self._calls:
            return ""
        if len(self._calls) >= self.limits.in_all:
            return f"{self.limits.in_all} calls wait for their clients already"
        if self._of_client[client] >= self.limits.per_client:
            return f"{self.limits.per_client} calls of this client wait for its answers already"
        if self._of_backend[backend] >= self.limits.per_backend:
            return f"{self.limits.per_backend} calls to backend {backend!r} wait for their clients already"
        if not self._bytes.take(client, byte_count):
            return "the calls that wait for their clients hold too many bytes already"
        self._calls[call] = (client, backend, byte_count)
        self._unfinished.add(call)
        self._of_client[client] += 1
        self._of_backend[backend] += 1
        return ""

    def end(self, call: str) -> None:
        """The call has ended."""
        self.resume(call)
        self._unfinished.discard(call)

    def resume(self, call: str) -> None:
        """Its client has answered."""
        found = self._calls.pop(call, None)
        if found is not None:
            client, backend, byte_count = found
            self._bytes.give_back(client, byte_count)
            for counter, key in ((self._of_client, client), (self._of_backend, backend)):
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]

    def assert_consistent(self) -> None:
        assert sum(self._of_client.values()) == sum(self._of_backend.values()) == len(self._calls) <= self.limits.in_all
        assert self._calls.keys() <= self._unfinished
        assert self._bytes.held == sum(byte_count for _, _, byte_count in self._calls.values())
        assert all(0 < count <= self.limits.per_client for count in self._of_client.values())
        assert all(0 < count <= self.limits.per_backend for count in self._of_backend.values())
