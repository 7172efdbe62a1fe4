"""How many calls a cell may run as tasks, and how long it keeps them: in all, of one address, for one backend. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict

import attrs


@attrs.frozen(kw_only=True)
class TaskLimits:
    """What holds for the tasks of one cell, running ones and those that are over.

    per_client:   a quarter of them, as `max_share_per_address` is by default.
    ttl_s:        the longest that one is kept, from its creation. result_bytes: of all that are over, together.
    poll_s:       how often a client should ask. prompt_s: how long a call may take before it becomes a task by itself.

    Source: MCP 2025-11-25, basic/utilities/tasks, "Resource Management".
    """

    in_all: int = 1000
    per_client: int = 250
    per_backend: int = 500
    ttl_s: float = 3600.0
    result_bytes: int = 67_108_864
    poll_s: float = 1.0
    prompt_s: float = 1.0


@attrs.frozen
class _Entry:
    client: str
    backend: str


class TaskLedger:
    """{task: (address of its client, backend)} of the tasks that are kept now, oldest first."""

    def __init__(self, limits: TaskLimits) -> None:
        self.limits = limits
        self._tasks: OrderedDict[str, _Entry] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # of those that are over, the first one first
        self._of_client: Counter[str] = Counter()
        self._of_backend: Counter[str] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def running_count(self) -> int:
        """How many are not over, those included that wait for their client's answers."""
        return len(self._tasks) - len(self._sizes)

    def open(self, task: str, client: str, backend: str) -> str:
        """Take the task in; gives the limit that forbids it in words, or ""."""
        if len(self._tasks) >= self.limits.in_all:
            return f"{self.limits.in_all} tasks are kept already"
        if self._of_client[client] >= self.limits.per_client:
            return f"{self.limits.per_client} tasks of this client are kept already"
        if self._of_backend[backend] >= self.limits.per_backend:
            return f"{self.limits.per_backend} tasks of backend {backend!r} are kept already"
        self._tasks[task] = _Entry(client, backend)
        self._of_client[client] += 1
        self._of_backend[backend] += 1
        return ""

    def finish(self, task: str, size_bytes: int) -> list[str]:
        """The task is over; gives those whose results must go now to make room for its own, even itself if it is too large."""
        if task not in self._tasks or task in self._sizes:
            return []
        self._sizes[task] = size_bytes
        self._bytes += size_bytes
        excess, leaving = self._bytes - self.limits.result_bytes, []
        for oldest, size in self._sizes.items():
            if excess <= 0:
                break
            leaving.append(oldest)
            excess -= size
        return leaving

    def forget(self, task: str) -> None:
        """The task is not kept any longer."""
        entry = self._tasks.pop(task, None)
        if entry is None:
            return
        self._bytes -= self._sizes.pop(task, 0)
        for counter, key in ((self._of_client, entry.client), (self._of_backend, entry.backend)):
            counter[key] -= 1
            if counter[key] <= 0:
                del counter[key]

    def assert_consistent(self) -> None:
        assert sum(self._of_client.values()) == sum(self._of_backend.values()) == len(self._tasks) <= self.limits.in_all
        assert all(0 < count <= self.limits.per_client for count in self._of_client.values())
        assert all(0 < count <= self.limits.per_backend for count in self._of_backend.values())
        assert self._sizes.keys() <= self._tasks.keys()
        assert sum(self._sizes.values()) == self._bytes <= self.limits.result_bytes
