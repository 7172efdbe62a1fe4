"""Rate limits as token buckets: how much one client may ask for. The attenuation of variety in Beer's model. Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

MOST_KEYS = 10_000
_LONGEST_KEY: Final = 200


class TokenBuckets:
    """One bucket per key: `burst` requests at once, refilled with `rate` per second. The time is an argument.

    At most MOST_KEYS buckets are kept, those longest unused are dropped first: a client that comes back after that starts with a
    full bucket, as one that rests long enough does anyway.

    Source: the token bucket of RFC 2697's meters; "ours" in that a refused request takes no token.
    """

    def __init__(self, rate: float, burst: float, most_keys: int = MOST_KEYS) -> None:
        if rate <= 0 or burst < 1 or most_keys < 1:
            raise ValueError(f"rate is {rate}, burst {burst}, most_keys {most_keys}: above 0, at least 1, at least 1")
        self._rate = rate
        self._burst = burst
        self._most_keys = most_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # {key: (tokens, when they were counted)}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now_s: float, part: float = 1.0) -> float:
        """Take one token; 0 where there was one, else the seconds until there will be.

        part: of rate and burst, more than 0, where others give out the rest; one token fits into any bucket.
        """
        if len(key) > _LONGEST_KEY:  # a header that is a source of keys may have any length
            key = hashlib.blake2b(key.encode(errors="surrogatepass")).hexdigest()
        rate, burst = self._rate * part, max(1.0, self._burst * part)
        tokens, counted_s = self._buckets.get(key, (burst, now_s))
        tokens = min(burst, tokens + max(0.0, now_s - counted_s) * rate)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / rate
        self._buckets[key] = (tokens if wait_s else tokens - 1, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_keys:
            self._buckets.popitem(last=False)
        return wait_s
