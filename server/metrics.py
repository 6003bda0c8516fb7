"""Every Prometheus metric the server adds to vLLM's own, with its unit, and the one place that records them.

All are measured where the client is: from the first byte of a request to the bytes written back. Of a
request everything is recorded when it ends, so each series carries the outcome:
`ok`, `invalid` (4xx), `refused` (503 or 429 of ours), `failed` (5xx, or a stream with an error inside or
without its end), `disconnected` (the client went before the end).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from malmoi import measure
from server.answer import AnswerReader

Outcome = Literal["ok", "invalid", "refused", "failed", "disconnected"]

LATENCY_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
    *(0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60),
)
"""1 ms to 60 s; vLLM's own begin at 10 ms and 300 ms, too coarse for a small model."""
PER_CHARACTER_BUCKETS_S = (0.0001, 0.0002, 0.0003, 0.0005, *LATENCY_BUCKETS_S[:22])
LABELS = ("route", "outcome")
PARTS_AT_ONCE = 256
"""At most this many parts of a body, about 60 KB, are kept before they are read."""
ANSWER_ROUTES = ("chat", "completions")
"""Routes whose bodies carry a model's text."""
ECHO = re.compile(rb'"echo"\s*:\s*[t1"]')
"""In a request: echo, set to what vLLM reads as true; inside a prompt, JSON escapes the quotes."""
ECHO_BYTES = 64
"""At least what ECHO matches, so that it is found where two parts of a request meet."""


class Metrics:
    """The collectors; one instance per registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S) -> Histogram:
            return Histogram(f"malmoi_{name}", text, LABELS, buckets=buckets, registry=registry)

        self.time_to_first_token = histogram(
            "time_to_first_token_seconds",
            "Seconds from the first byte of a request to the first text of its streamed answer.",
        )
        self.inter_token_latency = histogram(
            "inter_token_latency_seconds",
            "Seconds between one piece of text and the next of one choice of a streamed answer, as written.",
        )
        self.request_duration = histogram(
            "request_duration_seconds", "Seconds from the first byte of a request to the last of its answer."
        )
        self.queue = histogram(
            "request_queue_seconds",
            "Seconds a request waited in the engine before it was first scheduled. "
            "Of aborted requests, as those of clients that went, vLLM does not tell: they are not in here.",
        )
        self.seconds_per_character = histogram(
            "seconds_per_character",
            "Seconds from the first byte of a request to the last of its answer, per character of the answer.",
            PER_CHARACTER_BUCKETS_S,
        )
        self.characters = Counter(
            "malmoi_characters",
            "Characters (Unicode code points) of all answers but those that echo their prompt.",
            LABELS,
            registry=registry,
        )
        self.requests = Counter("malmoi_requests", "Requests that have ended.", LABELS, registry=registry)

    def record_queue(self, route: str, outcome: Outcome, duration_s: float) -> None:
        """Records the engine's own measurement of a request's wait."""
        self.queue.labels(route, outcome).observe(duration_s)


@dataclass(slots=True)
class Measurement:
    """One request's timing, from the first byte on; `clock` and `received_at` in seconds."""

    metrics: Metrics
    route: str
    received_at: float
    clock: Callable[[], float]
    reader: AnswerReader = field(default_factory=AnswerReader)
    echoes: bool = False
    """Whether the answer repeats the prompt, which the model did not write."""
    _request_tail: bytes = b""
    _unread: list[tuple[bytes, float]] = field(default_factory=list)
    """Parts of the body and when they were written. Read many at a time: between two tokens of other requests
    each one would find the reader's code gone from the CPU's caches.
    """

    def received(self, body: bytes) -> None:
        """Takes note of a part of the request's body."""
        if self.route in ANSWER_ROUTES and not self.echoes:
            body = self._request_tail + body
            self.echoes = ECHO.search(body) is not None
            self._request_tail = body[-ECHO_BYTES:]

    def wrote(self, body: bytes) -> None:
        """Takes note of a part of the answer's body, just before it is written."""
        if self.route in ANSWER_ROUTES:
            self._unread.append((body, self.clock()))
            if len(self._unread) >= PARTS_AT_ONCE:
                self._read()

    def failed_inside(self) -> bool:
        """Whether the body, so far, holds an error where an answer was expected."""
        self._read()
        return self.reader.has_error

    def _read(self) -> None:
        for body, written_at in self._unread:
            self.reader.feed(body, written_at)
        self._unread.clear()

    def finish(self, outcome: Outcome) -> None:
        """Records everything there is to record."""
        metrics, labels = self.metrics, (self.route, outcome)
        duration_s = self.clock() - self.received_at
        self._read()
        metrics.requests.labels(*labels).inc()
        metrics.request_duration.labels(*labels).observe(duration_s)
        self.reader.close()
        if self.reader.num_characters and not self.echoes:
            metrics.characters.labels(*labels).inc(self.reader.num_characters)
            per_character = measure.seconds_per_character(duration_s, self.reader.num_characters)
            metrics.seconds_per_character.labels(*labels).observe(per_character)
        if self.reader.text_times:
            _, first = self.reader.text_times[0]
            metrics.time_to_first_token.labels(*labels).observe(first - self.received_at)
            observe = metrics.inter_token_latency.labels(*labels).observe
            latest: dict[int, float] = {}
            for choice, written_at in self.reader.text_times:
                gap_s = written_at - latest.get(choice, written_at)
                if gap_s:  # none within a part, nor before a choice's first
                    observe(gap_s)
                latest[choice] = written_at
