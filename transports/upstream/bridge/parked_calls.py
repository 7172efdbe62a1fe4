"""How many live calls may wait for their clients' answers: in all, for one address of clients, for one backend. Pure."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.frozen(kw_only=True)
class ParkingLimits:
    """in_all counts the calls of one cell. park_s: how long a call waits for its client. rounds: questions one call may ask.

    per_client is a quarter of them, as `max_share_per_address` is by default.
    """

    in_all: int = 1000
    per_client: int = 250
    per_backend: int = 500
    rounds: int = 50
    park_s: float = 300.0


class ParkedCalls:
    """{call: (address of its client, backend)} of the calls that are parked now."""

    def __init__(self, limits: ParkingLimits) -> None:
        self.limits = limits
        self._calls: dict[str, tuple[str, str]] = {}
        self._of_client: Counter[str] = Counter()
        self._of_backend: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._calls)

    def park(self, call: str, client: str, backend: str) -> str:
        """Take the call in; gives the limit that forbids it in words, or "". One that is parked already stays as it is."""
        if call in self._calls:
            return ""
        if len(self._calls) >= self.limits.in_all:
            return f"{self.limits.in_all} calls wait for their clients already"
        if self._of_client[client] >= self.limits.per_client:
            return f"{self.limits.per_client} calls of this client wait for its answers already"
        if self._of_backend[backend] >= self.limits.per_backend:
            return f"{self.limits.per_backend} calls to backend {backend!r} wait for their clients already"
        self._calls[call] = (client, backend)
        self._of_client[client] += 1
        self._of_backend[backend] += 1
        return ""

    def leave(self, call: str) -> None:
        """The call is resumed, or has ended."""
        found = self._calls.pop(call, None)
        if found is not None:
            for counter, key in zip((self._of_client, self._of_backend), found, strict=True):
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]

    def assert_consistent(self) -> None:
        assert sum(self._of_client.values()) == sum(self._of_backend.values()) == len(self._calls) <= self.limits.in_all
        assert all(0 < count <= self.limits.per_client for count in self._of_client.values())
        assert all(0 < count <= self.limits.per_backend for count in self._of_backend.values())
