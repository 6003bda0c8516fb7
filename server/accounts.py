"""What each key has used since the server started, and what of its limits is left."""

import secrets
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

from server.keys import Key
from server.life import Life
from server.quota import Quota

REMEMBERED = 1000
"""Latest requests whose latency is reported."""
PERCENTILES = (50, 90, 99)


class Account:
    """One key's use of the server."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.quota = Quota(key)
        self.cache_salt = secrets.token_hex(16) if key.id else None
        """With it no key can tell by the clock what prefixes another has sent; None without keys."""
        self._requests: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self._characters = 0
        self._first_text_s: deque[float] = deque(maxlen=REMEMBERED)
        self._duration_s: deque[float] = deque(maxlen=REMEMBERED)

    def adopt(self, key: Key) -> None:
        """The same key, as it reads in the file now."""
        if key is not self.key:
            self.key = key
            self.quota.adopt(key)

    def record(self, life: Life) -> None:
        """Counts a request that has ended."""
        self._requests[life.outcome] += 1
        self._prompt_tokens += life.prompt_tokens
        self._completion_tokens += life.completion_tokens
        self._characters += life.characters
        if life.first_text_at is not None:
            self._first_text_s.append(life.first_text_at - life.received_at)
        if life.ended_at is not None and life.completion_tokens:
            self._duration_s.append(life.ended_at - life.received_at)

    def report(self, since: datetime) -> dict[str, Any]:
        """What `GET /v1/usage` shows the key of itself."""
        key = self.key
        return {
            "object": "usage",
            "since": since.isoformat(),
            "key": {"id": key.id, "name": key.name, "expires": key.expires and key.expires.isoformat()},
            "requests": {"total": self._requests.total(), **self._requests},
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": self._prompt_tokens + self._completion_tokens,
            "characters": self._characters,
            "latency_s": {
                "time_to_first_token": percentiles(self._first_text_s),
                "request_duration": percentiles(self._duration_s),
            },
            "limits": {
                "requests_per_minute": key.requests_per_minute,
                "tokens_per_minute": key.tokens_per_minute,
                "concurrency": key.concurrency,
                "models": key.models,
            },
        }


class Accounts:
    """The accounts of all keys that have shown up."""

    def __init__(self) -> None:
        self.since = datetime.now(UTC).replace(microsecond=0)
        self._accounts: dict[str, Account] = {}

    def of(self, key: Key) -> Account:
        """The account of `key`."""
        account = self._accounts.get(key.id)
        if account is None:
            account = self._accounts[key.id] = Account(key)
        account.adopt(key)
        return account


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """The latest requests' p50, p90 and p99; None where there was none."""
    if not values:
        return {f"p{percent}": None for percent in PERCENTILES}
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return {f"p{percent}": round(cuts[percent - 1], 6) for percent in PERCENTILES}
