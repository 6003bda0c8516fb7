"""The paired bootstrap against formulas, and against every draw there can be of a few items."""

import itertools
import math

import numpy as np
import pytest
from lm_eval.tasks.kobest.utils import macro_f1_score

from train.evaluation.bootstrap import (
    NUM_RESAMPLES,
    Difference,
    Floats,
    accuracy_difference,
    bits_per_byte_difference,
    macro_f1_difference,
    macro_f1_stderr,
)

LABELS = (0, 0, 1, 2)
BASELINE = (0, 1, 1, 1)
OTHER = (0, 0, 2, 0)
"""Four questions, so that all 256 draws can be gone through; in some a label does not occur."""


def test_macro_f1_is_that_of_every_draw() -> None:
    """The harness's own macro F1 (scikit-learn's) of each of the draws, all equally likely."""

    def f1(answers: tuple[int, ...], drawn: tuple[int, ...]) -> float:
        return float(macro_f1_score([(LABELS[item], answers[item]) for item in drawn]))

    every = [f1(OTHER, drawn) - f1(BASELINE, drawn) for drawn in itertools.product(range(4), repeat=4)]
    found = macro_f1_difference(LABELS, BASELINE, OTHER)
    spread = np.std([f1(BASELINE, drawn) for drawn in itertools.product(range(4), repeat=4)])
    assert macro_f1_stderr(LABELS, BASELINE) == pytest.approx(spread, rel=0.03)  # four times 1 / sqrt(20,000)
    assert found.value == pytest.approx(f1(OTHER, (0, 1, 2, 3)) - f1(BASELINE, (0, 1, 2, 3)))
    _agrees(found, np.round(every, 12))


def test_bits_per_byte_is_that_of_every_draw() -> None:
    nats = np.array([[10.0, 52.0, 7.0, 81.0, 33.0], [9.0, 55.0, 3.0, 88.0, 30.0]])
    num_bytes = np.array([11, 60, 9, 100, 47])
    every = []
    for drawn in itertools.product(range(5), repeat=5):
        chosen = list(drawn)
        first, second = nats[:, chosen].sum(axis=1) / math.log(2) / num_bytes[chosen].sum()
        every.append(second - first)
    found = bits_per_byte_difference(num_bytes, nats[0], nats[1])
    _agrees(found, np.round(every, 12))


def _agrees(found: Difference, every: Floats) -> None:
    """Within four standard errors of what NUM_RESAMPLES draws can tell of all of them."""
    share = min(np.mean(every <= 0), np.mean(every >= 0))
    error = math.sqrt(share * (1 - share) / NUM_RESAMPLES)
    assert found.p == pytest.approx(2 * share, abs=2 * 4 * error)
    for bound, level in ((found.low, 0.025), (found.high, 0.975)):
        error = 4 * math.sqrt(level * (1 - level) / NUM_RESAMPLES)
        below, above = np.quantile(every, [level - error, level + error])
        assert below <= bound <= above


def test_accuracy_has_the_spread_of_the_formula() -> None:
    """Of paired shares: (p10 + p01 - (p01 - p10)^2) / n, the variance in McNemar's test; nearly normal."""
    baseline = [True] * 50 + [True] * 20 + [False] * 35 + [False] * 95
    other = [True] * 50 + [False] * 20 + [True] * 35 + [False] * 95
    found = accuracy_difference(baseline, other)
    gained, lost = 35 / 200, 20 / 200
    spread = math.sqrt((gained + lost - (gained - lost) ** 2) / 200)
    assert found.value == pytest.approx(gained - lost)
    assert found.low == pytest.approx(gained - lost - 1.96 * spread, abs=0.006)  # a question is 0.005
    assert found.high == pytest.approx(gained - lost + 1.96 * spread, abs=0.006)
    half_a_question = 0.5 / 200  # draws without a difference count for both sides
    expected = math.erfc((gained - lost - half_a_question) / spread / math.sqrt(2))
    assert found.p == pytest.approx(expected, abs=0.01)


def test_what_is_the_same_does_not_differ() -> None:
    answers = [0, 1] * 30
    assert macro_f1_difference(answers, answers, answers) == Difference(value=0, low=0, high=0, p=1)


def test_swapped_models_differ_by_the_opposite() -> None:
    random = np.random.default_rng(3)
    baseline, other = random.random((2, 400)) * 100
    num_bytes = random.integers(50, 500, size=400)
    one = bits_per_byte_difference(num_bytes, baseline, other)
    back = bits_per_byte_difference(num_bytes, other, baseline)
    assert (back.value, back.low, back.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert back.p == one.p


def test_what_always_is_better_is_significant_and_what_is_noise_is_not() -> None:
    """Of 400 pairs of equal models about one in twenty is marked, not more."""
    random = np.random.default_rng(1)
    better = accuracy_difference([False] * 30 + [True] * 70, [True] * 100)
    assert better.is_significant
    assert better.p == 2 / (NUM_RESAMPLES + 1)
    pairs = random.random((400, 2, 300)) < 0.5
    found = [accuracy_difference(list(baseline), list(other)) for baseline, other in pairs]
    marked = sum(difference.is_significant for difference in found)
    assert 5 <= marked <= 40  # 20 are expected, with a standard deviation of 4.4
