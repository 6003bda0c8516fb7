"""Percentiles of the last minutes against numpy's, and what falls out of them."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from server.live import INTERVAL_S, NUM_INTERVALS, SERIES, Live, Sketch


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0])
def test_quantiles_are_numpys_within_two_percent(spread: float) -> None:
    draw = random.Random(7)
    values = [draw.lognormvariate(-3, spread) for _ in range(5000)]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    shares = (0.99, 0.5, 0.9)
    expected = [np.quantile(values, share, method="inverted_cdf") for share in shares]
    assert sketch.quantiles(shares) == pytest.approx(expected, rel=0.02)


def test_zero_is_zero_and_nothing_is_none() -> None:
    sketch = Sketch()
    assert sketch.quantiles((0.5, 0.99)) == [None, None]
    for value in (0.0, 0.0, 5.0):
        sketch.add(value)
    assert sketch.quantiles((0.5, 0.99)) == pytest.approx([0.0, 5.0], rel=0.02)


def test_samples_count_for_the_interval_they_were_taken_in() -> None:
    clock = Clock()
    live = Live(clock)
    live.add("queue", 2.0, clock.now)
    clock.now += 3 * INTERVAL_S
    live.add("queue", 8.0, clock.now)
    live.add("queue", 4.0, clock.now - INTERVAL_S)  # told of late
    points = live.percentiles()["queue"]["p50"]
    assert len(points) == NUM_INTERVALS
    assert points[:-4] == [None] * (NUM_INTERVALS - 4)
    assert points[-4:] == [
        pytest.approx(2, rel=0.02),
        None,
        pytest.approx(4, rel=0.02),
        pytest.approx(8, rel=0.02),
    ]


def test_every_step_counts_and_the_kv_cache_is_looked_at_ten_times_a_second() -> None:
    clock = Clock()
    live = Live(clock)
    for step in range(1000):
        clock.now = 1000 + step / 500
        live.took_step(SimpleNamespace(kv_cache_usage=0.25 if step < 50 else 0.5, num_waiting_reqs=step))
    assert (live.num_steps, live.num_waiting) == (1000, 999)
    points = live.percentiles()["kv_cache"]
    assert points["p50"][-1] == pytest.approx(0.5, rel=0.02)
    assert sum(live._interval(200).sketches["kv_cache"]._counts.values()) == 20


def test_what_is_too_old_is_gone_and_does_not_come_back() -> None:
    clock = Clock()
    live = Live(clock)
    live.add("queue", 2.0, clock.now)
    before = clock.now
    clock.now += NUM_INTERVALS * INTERVAL_S
    assert live.percentiles()["queue"]["p99"] == [None] * NUM_INTERVALS
    live.add("queue", 3.0, clock.now)
    live.add("queue", 2.0, before)  # as late as can be: its place is taken
    points = live.percentiles()["queue"]["p99"]
    assert points[-1] == pytest.approx(3, rel=0.02)
    assert points[:-1] == [None] * (NUM_INTERVALS - 1)


def test_p99_of_a_speed_is_what_nearly_all_reach() -> None:
    clock = Clock()
    live = Live(clock)
    for speed in range(1, 101):
        live.add("characters_per_second", speed, clock.now)
        live.add("queue", speed, clock.now)
    found = live.percentiles()
    latest = {name: [found[name][key][-1] for key in ("p50", "p90", "p99")] for name in SERIES}
    assert latest["characters_per_second"] == pytest.approx([50, 10, 1], rel=0.02)
    assert latest["queue"] == pytest.approx([50, 90, 99], rel=0.02)
