"""Token buckets as the provider keeps them: requests, input and output tokens a minute, each for every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.servers.behaviours import Fault

_NAMES = ("requests", "input-tokens", "output-tokens")


@dataclass(frozen=True, slots=True)
class Limits:
    """Per minute, for each model. A bucket holds as much as `burst_s` seconds refill."""

    requests: int = 1_000
    input_tokens: int = 2_000_000
    output_tokens: int = 400_000
    burst_s: float = 60.0


class _Bucket:
    def __init__(self, per_minute: int, *, burst_s: float, now_s: float) -> None:
        self.limit = per_minute
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * burst_s)
        self.level = self.capacity
        self._at_s = now_s

    def refill(self, now_s: float) -> None:
        self.level = min(self.capacity, self.level + (now_s - self._at_s) * self.rate)
        self._at_s = now_s

    def wait_s(self, amount: float) -> float:
        return max(0.0, (min(amount, self.capacity) - self.level) / self.rate)


class Buckets:
    """Admits requests, takes what they use, and tells in headers what is left."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._models: dict[str, tuple[_Bucket, _Bucket, _Bucket]] = {}

    def admit(self, model: str, *, input_tokens: int) -> Fault | None:
        """Take a request and its input (reads of the cache left out), or nothing: then the 429, with `retry-after`.

        Output is taken as it is produced (`produced`), so a request needs an output bucket that isn't empty.
        """
        requests, inputs, outputs = self._of(model)
        wait_s = max(requests.wait_s(1), inputs.wait_s(input_tokens), outputs.wait_s(1))
        if wait_s > 0:
            headers = {"retry-after": str(max(1, math.ceil(wait_s)))}
            message = "This request would exceed your organization's rate limit."
            return Fault("limit_reached", 429, "rate_limit_error", message, None, headers)
        requests.level -= 1
        inputs.level -= input_tokens
        return None

    def produced(self, model: str, output_tokens: int) -> None:
        """Output was produced; the bucket may go below zero."""
        self._of(model)[2].level -= output_tokens

    def headers(self, model: str) -> Mapping[str, str]:
        """The rate-limit headers of an answer: token remainders in thousands, `tokens` as the tighter of the two."""
        buckets = dict(zip(_NAMES, self._of(model), strict=True))
        tokens = min(buckets["input-tokens"], buckets["output-tokens"], key=lambda bucket: bucket.level / bucket.limit)
        now = datetime.now(UTC)
        told: dict[str, str] = {}
        for name, bucket in {**buckets, "tokens": tokens}.items():
            left = max(0, int(bucket.level))
            reset = now + timedelta(seconds=(bucket.capacity - bucket.level) / bucket.rate)
            told[f"anthropic-ratelimit-{name}-limit"] = str(bucket.limit)
            told[f"anthropic-ratelimit-{name}-remaining"] = str(left if name == "requests" else round(left, -3))
            told[f"anthropic-ratelimit-{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
        return told

    def _of(self, model: str) -> tuple[_Bucket, _Bucket, _Bucket]:
        now_s = self._clock()
        buckets = self._models.get(model)
        if buckets is None:
            limits = self._limits
            requests, inputs, outputs = (
                _Bucket(per_minute, burst_s=limits.burst_s, now_s=now_s)
                for per_minute in (limits.requests, limits.input_tokens, limits.output_tokens)
            )
            buckets = self._models[model] = (requests, inputs, outputs)
        for bucket in buckets:
            bucket.refill(now_s)
        return buckets
