"""What the local server did, second by second, so that a bench can draw how limits were used."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any


class Tally:
    """Counts of requests by what was done with them, and of tokens; seconds count from the first request."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.requests = 0
        self.served: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self._clock = clock
        self._started_s: float | None = None
        self._seconds: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def count(self, name: str) -> None:
        """A request came, and this was done with it."""
        self.requests += 1
        self.served[name] += 1
        self._now()[name] += 1

    def count_tokens(self, usage: dict[str, Any]) -> None:
        """A request was answered, with this usage."""
        second = self._now()
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"):
            self.tokens[name] += usage[name]
            second[name] += usage[name]

    def clear(self) -> None:
        """Forget everything."""
        self.requests = 0
        self.served.clear()
        self.tokens.clear()
        self._seconds.clear()
        self._started_s = None

    def per_second(self) -> dict[str, dict[str, int]]:
        """Counts by second since the first request; seconds in which nothing happened are left out."""
        return {str(second): dict(counts) for second, counts in sorted(self._seconds.items())}

    def _now(self) -> Counter[str]:
        now_s = self._clock()
        if self._started_s is None:
            self._started_s = now_s
        return self._seconds[int(now_s - self._started_s)]
