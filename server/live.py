"""The last minutes' latencies, kept for the page: what Prometheus would tell, without one."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, inf, log
from typing import Final, Literal, Protocol

Series = Literal["time_to_first_token", "inter_token", "characters_per_second", "queue", "kv_cache"]
SERIES: Final[tuple[Series, ...]] = (
    *("time_to_first_token", "inter_token", "characters_per_second", "queue", "kv_cache"),
)
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
OF_SPEEDS: Final = {"p50": 0.5, "p90": 0.1, "p99": 0.01}
"""Where more is better, p99 is what 99 % of the samples reach at least."""
SPEEDS: Final = frozenset[Series]({"characters_per_second"})
INTERVAL_S: Final = 5
NUM_INTERVALS: Final = 60
KV_CACHE_EVERY_S: Final = 0.1
"""How often its use is looked at: not at every step, of which there may be hundreds in a second."""
RATIO: Final = 1.04
"""Of one bucket's bound to the next one's."""
LOG_RATIO: Final = log(RATIO)


class Sketch:
    """Counts of values by logarithmic buckets, from which quantiles come back within 2 %.

    Source: DDSketch, arXiv:1908.10693, section 2.
    """

    _ZERO = -(10**6)
    """The bucket of everything too small to matter."""
    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Takes a value of 0 or more."""
        bucket = ceil(log(value) / LOG_RATIO) if value > 1e-9 else self._ZERO
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def quantiles(self, shares: Iterable[float]) -> list[float | None]:
        """For each share the least value that it, of all values, does not exceed; None where there are none."""
        buckets = sorted(self._counts)
        up_to = list(accumulate(self._counts[bucket] for bucket in buckets))
        if not up_to:
            return [None for _ in shares]
        ranks = (max(1, ceil(share * up_to[-1])) for share in shares)
        return [self._value(buckets[bisect_left(up_to, rank)]) for rank in ranks]

    def _value(self, bucket: int) -> float:
        return 0.0 if bucket == self._ZERO else 2 * RATIO**bucket / (1 + RATIO)


@dataclass(slots=True)
class Interval:
    """What happened in one of the last intervals."""

    number: int
    """Of the clock's intervals since its zero."""
    sketches: dict[Series, Sketch] = field(default_factory=lambda: {name: Sketch() for name in SERIES})


NEVER: Final = Interval(-1)


class StepStats(Protocol):
    """vLLM's SchedulerStats."""

    kv_cache_usage: float
    """Share of the KV cache's blocks in use."""
    num_waiting_reqs: int
    """Requests that it has not begun."""


class Live:
    """Percentiles of the last NUM_INTERVALS intervals; `clock` in seconds.

    A sample counts for the interval it was taken in, even if it is told of later.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._intervals = [NEVER] * NUM_INTERVALS  # each at its number modulo NUM_INTERVALS
        self.num_waiting = 0
        """Requests that wait in the engine, after its latest step."""
        self.num_steps = 0
        """Of the engine, so far."""
        self._kv_cache_at = -inf
        """When its use was last looked at."""

    def add(self, series: Series, value: float, at: float) -> None:
        """Takes a sample: seconds, characters per second, or a share; `at` by the clock."""
        self.add_all(series, ((value, at),))

    def add_all(self, series: Series, samples: Iterable[tuple[float, float]]) -> None:
        """Takes samples in the order of time, each with its own."""
        until = 0.0
        for value, at in samples:
            if at >= until:
                number = int(at // INTERVAL_S)
                until, sketch = (number + 1.0) * INTERVAL_S, self._interval(number).sketches[series]
            sketch.add(value)

    def _interval(self, number: int) -> Interval:
        """The interval of that number; one that nobody will see where it is past keeping."""
        place = number % NUM_INTERVALS
        kept = self._intervals[place]
        if kept.number == number:
            return kept
        interval = Interval(number)
        if kept.number < number:
            self._intervals[place] = interval
        return interval

    def took_step(self, stats: StepStats | None) -> None:
        """Called after each step of the engine, with what it says of itself."""
        self.num_steps += 1
        if stats is not None:
            self.num_waiting = stats.num_waiting_reqs
            now = self._clock()
            if now - self._kv_cache_at >= KV_CACHE_EVERY_S:
                self._kv_cache_at = now
                self.add("kv_cache", stats.kv_cache_usage, now)

    @property
    def latest(self) -> int:
        """Number of the present interval."""
        return int(self._clock() // INTERVAL_S)

    def percentiles(self) -> dict[Series, dict[str, list[float | None]]]:
        """Of each series and percentile NUM_INTERVALS values, the latest last; None where nothing happened."""
        numbers = range(self.latest - NUM_INTERVALS + 1, self.latest + 1)
        kept = [self._intervals[number % NUM_INTERVALS] for number in numbers]
        chosen = [
            interval if interval.number == number else None
            for number, interval in zip(numbers, kept, strict=True)
        ]
        return {name: _percentiles(name, chosen) for name in SERIES}


def _percentiles(name: Series, intervals: Sequence[Interval | None]) -> dict[str, list[float | None]]:
    shares = OF_SPEEDS if name in SPEEDS else PERCENTILES
    points = [
        interval.sketches[name].quantiles(shares.values()) if interval else [None] * len(shares)
        for interval in intervals
    ]
    return {key: [point[index] for point in points] for index, key in enumerate(shares)}
