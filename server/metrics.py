"""Every Prometheus metric the server adds to vLLM's own, with its unit, and the one place that records them.

All are measured where the client is: from the first byte of a request to the bytes written back. Of a
request everything is recorded when it ends, so each series carries its outcome (server.life.Outcome), the
group of its key, and how long prompt and answer are.
"""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from malmoi import measure
from server.answer import AnswerReader
from server.life import Life, Outcome
from server.live import Live
from server.objective import WINDOWS, Budget, Objective

LATENCY_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3),
    *(0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60),
)
"""1 ms to 60 s; vLLM's own begin at 10 ms and 300 ms, too coarse for a small model."""
PER_CHARACTER_BUCKETS_S = (0.0001, 0.0002, 0.0003, 0.0005, *LATENCY_BUCKETS_S[:22])
LABELS = ("route", "group", "outcome")
SIZED_LABELS = (*LABELS, "prompt", "answer")
PARTS_AT_ONCE = 256
"""At most this many parts of a body, about 60 KB, are kept before they are read."""
ANSWER_ROUTES = ("chat", "completions")
"""Routes whose bodies carry a model's text."""

Size = Literal["none", "short", "medium", "long"]
SHORT_TOKENS: Final = 128
MEDIUM_TOKENS: Final = 1024


def size_class(num_tokens: int) -> Size:
    """In a word, so that series stay few; "none" as well where the engine never said."""
    if num_tokens == 0:
        return "none"
    if num_tokens <= SHORT_TOKENS:
        return "short"
    return "medium" if num_tokens <= MEDIUM_TOKENS else "long"


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """As `histogram.observe` of each value, which takes the locks, and looks through the buckets, for each."""
    bounds = histogram._upper_bounds
    counts = Counts(bisect_left(bounds, value) for value in values)
    for place, count in counts.items():
        histogram._buckets[place].inc(count)
    histogram._sum.inc(sum(values))


def server_timing(times_s: Mapping[str, float]) -> tuple[bytes, bytes]:
    """The header of that name, in milliseconds."""
    value = ", ".join(f"{name};dur={1000 * time_s:.2f}" for name, time_s in times_s.items())
    return b"server-timing", value.encode()


class Metrics:
    """The collectors; one instance per registry. `clock` in seconds, that of every Life."""

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        objective: Objective | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S) -> Histogram:
            return Histogram(f"malmoi_{name}", text, SIZED_LABELS, buckets=buckets, registry=registry)

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
            "Seconds a request waited: for a slot, and in the engine before it was first scheduled. "
            "Of aborted requests, as those of clients that went, vLLM does not tell the second.",
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
        self.ready = Gauge(
            "malmoi_ready", "1 while the server is ready for requests, else 0.", registry=registry
        )
        self.objective_requests = Counter(
            "malmoi_objective_requests",
            "Requests that have ended and count for the objective, by whether they met it: goodput if so.",
            ("route", "group", "met"),
            registry=registry,
        )
        self.live = Live(clock)
        self.budget = Budget(objective or Objective(), clock)
        self._show_objective(registry)
        self.in_flight: set[Measurement] = set()
        """Of requests that a model answers and that have not ended."""
        in_flight = Gauge(
            "malmoi_requests_in_flight",
            "Requests to the model that have not ended.",
            ("state",),
            registry=registry,
        )
        in_flight.labels("running").set_function(lambda: self.num_running)
        in_flight.labels("waiting").set_function(lambda: self.num_waiting)

    @property
    def num_waiting(self) -> int:
        """Of those in flight, how many wait: for a slot, or in the engine. Any thread may ask."""
        lives = (measurement.life for measurement in tuple(self.in_flight))
        num_without_slot = sum(life.queued_at is not None and life.admitted_at is None for life in lives)
        return min(num_without_slot + self.live.num_waiting, len(self.in_flight))

    @property
    def num_running(self) -> int:
        """Of those in flight, how many do not wait."""
        return len(self.in_flight) - self.num_waiting

    def _show_objective(self, registry: CollectorRegistry) -> None:
        promised = self.budget.objective
        limits = Gauge("malmoi_objective_seconds", "The objective's limits.", ("of",), registry=registry)
        limits.labels("time_to_first_token").set(promised.time_to_first_token_s)
        limits.labels("character").set(promised.seconds_per_character)
        target = Gauge("malmoi_objective_target_ratio", "Share that is to meet them.", registry=registry)
        target.set(promised.target)
        burn = Gauge(
            "malmoi_objective_burn_rate",
            "How fast the error budget was used up in the window: 1 just lasts, 0 where nothing was asked.",
            ("window",),
            registry=registry,
        )
        for window in WINDOWS:
            burn.labels(window).set_function(partial(self._burn_rate, window))

    def _burn_rate(self, window: str) -> float:
        return self.budget.burn_rate(window) or 0.0


@dataclass(slots=True, eq=False)
class Measurement:
    """One request's timing; `clock` in seconds. What it is told of, and when: server.life."""

    metrics: Metrics
    life: Life
    clock: Callable[[], float]
    reader: AnswerReader = field(default_factory=AnswerReader)
    _gaps_s: list[float] = field(default_factory=list)
    _latest: dict[int, float] = field(default_factory=dict)
    """Of each choice, when its latest text was written."""
    _unread: list[tuple[bytes, float]] = field(default_factory=list)
    """Parts of the body and when they were written. Read many at a time: between two tokens of other requests
    each one would find the reader's code gone from the CPU's caches.
    """

    def __post_init__(self) -> None:
        if self._is_answer:
            self.metrics.in_flight.add(self)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Server-Timing: milliseconds in the queue, and from the first byte of the request until now."""
        times_s = {"queue": self._queue_s} if self._is_answer else {}
        times_s["total"] = self.clock() - self.life.received_at
        return [server_timing(times_s)]

    def wrote(self, body: bytes) -> None:
        """Takes note of a part of the answer's body, just before it is written."""
        if self._is_answer:
            self._unread.append((body, self.clock()))
            if len(self._unread) >= PARTS_AT_ONCE:
                self.read()

    def failed_inside(self) -> bool:
        """Whether the body, so far, holds an error where an answer was expected."""
        self.read()
        return self.reader.has_error

    def read(self) -> None:
        """Reads what was written and not read yet; of its latencies `metrics.live` is told at once."""
        for body, written_at in self._unread:
            self.reader.feed(body, written_at)
        self._unread.clear()
        if self.reader.text_times:
            self._take_times(self.reader.text_times)
            self.reader.text_times.clear()

    def _take_times(self, text_times: Sequence[tuple[int, float]]) -> None:
        life, live, latest = self.life, self.metrics.live, self._latest
        if life.first_text_at is None:
            _, life.first_text_at = text_times[0]
            live.add("time_to_first_token", life.first_text_at - life.received_at, life.first_text_at)
        gaps = []
        for choice, written_at in text_times:
            gap_s = written_at - latest.get(choice, written_at)
            if gap_s:  # none within a part, nor before a choice's first
                gaps.append((gap_s, written_at))
            latest[choice] = written_at
        live.add_all("inter_token", gaps)
        self._gaps_s += [gap_s for gap_s, _ in gaps]

    def finish(self, outcome: Outcome) -> None:
        """Records everything there is to record."""
        life, metrics = self.life, self.metrics
        life.ended_at = self.clock()
        self.read()
        self.reader.close()
        life.characters = 0 if life.echoes else self.reader.num_characters
        labels = (life.route, life.group, outcome)
        sized = (*labels, size_class(life.prompt_tokens), size_class(life.completion_tokens))
        duration_s = life.ended_at - life.received_at
        metrics.requests.labels(*labels).inc()
        metrics.request_duration.labels(*sized).observe(duration_s)
        if self._is_answer:
            metrics.in_flight.discard(self)
            self._record_answer(outcome, duration_s, labels, sized)

    def _record_answer(
        self, outcome: Outcome, duration_s: float, labels: tuple[str, ...], sized: tuple[str, ...]
    ) -> None:
        metrics, life, ended_at = self.metrics, self.life, self.life.received_at + duration_s
        per_character_s = first_s = None
        if life.queued_at is not None:
            metrics.queue.labels(*sized).observe(self._queue_s)
            metrics.live.add("queue", self._queue_s, ended_at)
        if life.characters:
            metrics.characters.labels(*labels).inc(life.characters)
            per_character_s = measure.seconds_per_character(duration_s, life.characters)
            metrics.seconds_per_character.labels(*sized).observe(per_character_s)
            if outcome == "ok":
                metrics.live.add("characters_per_second", 1 / per_character_s, ended_at)
        if life.first_text_at is not None:
            first_s = life.first_text_at - life.received_at
            metrics.time_to_first_token.labels(*sized).observe(first_s)
        if self._gaps_s:
            observe_all(metrics.inter_token_latency.labels(*sized), self._gaps_s)
        is_met = metrics.budget.objective.is_met(outcome, first_s, per_character_s)
        if is_met is not None:
            metrics.budget.count(is_met)
            metrics.objective_requests.labels(*labels[:2], "yes" if is_met else "no").inc()

    @property
    def _is_answer(self) -> bool:
        return self.life.route in ANSWER_ROUTES

    @property
    def _queue_s(self) -> float:
        """Seconds it waited: for a slot, so far, and in the engine."""
        life = self.life
        if life.queued_at is None:
            return 0.0
        left_at = life.admitted_at or life.ended_at or self.clock()
        return left_at - life.queued_at + life.engine_queue_s
