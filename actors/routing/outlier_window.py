"""Which share of a replica's calls failed, or took too long, in the last seconds. Pure."""

from __future__ import annotations

from collections import deque

import attrs

_BUCKET_COUNT = 10
_ENOUGH_CLIENTS = 2


@attrs.frozen(kw_only=True)
class OutlierRules:
    """When the share of calls that went wrong makes a replica an outlier.

    failure_rate_threshold, slow_call_rate_threshold: shares of the calls of the window; 0.0 asks for neither.
    minimum_calls: fewer say nothing.
    """

    window_s: float = 10.0
    minimum_calls: int = 20
    failure_rate_threshold: float = 0.0
    slow_call_rate_threshold: float = 0.0


@attrs.define
class _Bucket:
    """A tenth of the window. number: since the epoch of the caller's clock."""

    number: int
    call_count: int = 0
    failure_count: int = 0
    slow_count: int = 0


class OutlierWindow:
    """Counts calls by tenths of a window that slides; what two clients have not both seen makes no outlier.

    It is told of calls that went well when the next one does not: `success_count` of them since the last report. Where that was
    longer ago than the window is long, it takes them as spread evenly.
    Source: Envoy manual, outlier detection, failure percentage with request volume; resilience4j, time-based sliding window,
    failure rate and slow call rate; the second witness is ours.
    """

    __slots__ = ("_buckets", "_reported_at_s", "_rules", "_seen_by")

    def __init__(self, rules: OutlierRules) -> None:
        self._rules = rules
        self._buckets: deque[_Bucket] = deque()
        self._seen_by: dict[str, float] = {}  # {client: when it last saw one go wrong}, of the last two
        self._reported_at_s: float | None = None

    def note_failure(self, now_s: float, client: str, success_count: int) -> None:
        self._note(now_s, client, success_count).failure_count += 1

    def note_slow_call(self, now_s: float, client: str, success_count: int) -> None:
        """It went well and took too long. success_count: of those that did not."""
        self._note(now_s, client, success_count).slow_count += 1

    def is_exceeded(self, now_s: float) -> bool:
        """Whether too many calls of the window failed or were slow."""
        self._forget_old(now_s)
        calls = sum(bucket.call_count for bucket in self._buckets)
        since_s = now_s - self._rules.window_s
        if calls < self._rules.minimum_calls or sum(at_s > since_s for at_s in self._seen_by.values()) < _ENOUGH_CLIENTS:
            return False
        shares = (
            (sum(bucket.failure_count for bucket in self._buckets), self._rules.failure_rate_threshold),
            (sum(bucket.slow_count for bucket in self._buckets), self._rules.slow_call_rate_threshold),
        )
        return any(threshold > 0 and count >= threshold * calls for count, threshold in shares)

    def forget(self, now_s: float) -> None:
        """Begin anew: what was counted is judged."""
        self._buckets.clear()
        self._seen_by.clear()
        self._reported_at_s = now_s

    def _note(self, now_s: float, client: str, success_count: int) -> _Bucket:
        window_s = self._rules.window_s
        elapsed_s = 0.0 if self._reported_at_s is None else now_s - self._reported_at_s
        if elapsed_s > window_s:
            success_count = int(success_count * window_s / elapsed_s)
        self._reported_at_s = now_s
        self._forget_old(now_s)
        number = int(now_s * _BUCKET_COUNT / window_s)
        if not self._buckets or self._buckets[-1].number < number:
            self._buckets.append(_Bucket(number))
        bucket = self._buckets[-1]
        bucket.call_count += 1 + success_count
        self._seen_by.pop(client, None)
        self._seen_by[client] = now_s
        while len(self._seen_by) > _ENOUGH_CLIENTS:
            del self._seen_by[next(iter(self._seen_by))]
        return bucket

    def _forget_old(self, now_s: float) -> None:
        oldest = int(now_s * _BUCKET_COUNT / self._rules.window_s) - _BUCKET_COUNT
        while self._buckets and self._buckets[0].number <= oldest:
            self._buckets.popleft()
