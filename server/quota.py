"""What one key may use per minute and at once: reserved before the work, settled after it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.keys import Key
from server.life import Life
from server.refusal import Header, Limited

MINUTE_S = 60.0
BUSY_RETRY_AFTER_S = 1.0
"""When a key that has all of its requests running may try again; nobody knows when one of them ends."""


@dataclass(slots=True)
class Bucket:
    """Holds up to a minute's worth and fills up steadily; what is used beyond it is owed."""

    per_minute: int
    level: float
    filled_at: float

    def fill(self, now: float) -> None:
        """Adds what has come since it was last filled; `now` in seconds."""
        gained = (now - self.filled_at) * self.per_minute / MINUTE_S
        self.level, self.filled_at = min(float(self.per_minute), self.level + gained), now

    def wait_s(self, amount: float) -> float:
        """Seconds until it holds `amount`."""
        return max(0.0, (amount - self.level) * MINUTE_S / self.per_minute)

    def headers(self, unit: str) -> list[Header]:
        """Limit, rest, and when it will be full again, under OpenAI's names."""
        values = {
            "limit": str(self.per_minute),
            "remaining": str(max(0, int(self.level))),
            "reset": f"{self.wait_s(self.per_minute):.3f}s",
        }
        return [(f"x-ratelimit-{name}-{unit}".encode(), value.encode()) for name, value in values.items()]


class Quota:
    """The limits of one key, and what of them is in use; `clock` in seconds."""

    def __init__(self, key: Key, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: Bucket | None = None
        self._tokens: Bucket | None = None
        self._concurrency: int | None = None
        self.num_open = 0
        """Requests that are served or wait."""
        self.adopt(key)

    def adopt(self, key: Key) -> None:
        """Takes over the limits of `key`, which may have changed; what has been used of them stays used."""
        self._concurrency = key.concurrency
        self._requests = self._resized(self._requests, key.requests_per_minute)
        self._tokens = self._resized(self._tokens, key.tokens_per_minute)

    @contextmanager
    def reserved(self, num_tokens: int, life: Life) -> Iterator[None]:
        """Takes a request and the most tokens it may use; afterwards gives back what it has not used.

        Of a request that was refused, nothing is counted.

        Raises: Limited.
        """
        taken = self._take(num_tokens)
        self.num_open += 1
        try:
            yield
        finally:
            self.num_open -= 1
            if self._tokens:
                self._tokens.level += taken - life.prompt_tokens - life.completion_tokens
            if self._requests and life.admitted_at is None:
                self._requests.level += 1

    def headers(self) -> list[Header]:
        """x-ratelimit-*, for the limits that there are."""
        headers: list[Header] = []
        for unit, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                bucket.fill(self._clock())
                headers += bucket.headers(unit)
        return headers

    def _take(self, num_tokens: int) -> float:
        """Takes from the buckets, or refuses and takes nothing; returns how many tokens."""
        if self._concurrency is not None and self.num_open >= self._concurrency:
            raise Limited(
                f"This key may have {self._concurrency} requests at once; wait until one of them has ended.",
                code="rate_limit_exceeded",
                retry_after_s=BUSY_RETRY_AFTER_S,
            )
        now = self._clock()
        tokens = min(num_tokens, self._tokens.per_minute) if self._tokens else 0
        for unit, bucket, amount in (("requests", self._requests, 1), ("tokens", self._tokens, tokens)):
            if bucket:
                bucket.fill(now)
                if wait_s := bucket.wait_s(amount):
                    raise Limited(
                        f"This key may use {bucket.per_minute} {unit} per minute; {bucket.level:.0f} are left, "
                        f"and this request takes up to {amount}.",
                        code="rate_limit_exceeded",
                        retry_after_s=wait_s,
                    )
        if self._requests:
            self._requests.level -= 1
        if self._tokens:
            self._tokens.level -= tokens
        return tokens

    def _resized(self, bucket: Bucket | None, per_minute: int | None) -> Bucket | None:
        now = self._clock()
        if per_minute is None:
            return None
        if bucket is None:
            return Bucket(per_minute, float(per_minute), now)
        bucket.fill(now)
        used = bucket.per_minute - bucket.level
        return Bucket(per_minute, per_minute - used, now)
