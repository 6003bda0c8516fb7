"""Whether two models differ by more than the choice of questions: the paired bootstrap.

Both models saw the same items. Items are drawn with replacement, each with what both models made of it, and the
difference is taken anew in every draw; an F1 is computed from the items drawn, never averaged.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals); Koehn,
EMNLP 2004 (the paired draw).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

NUM_RESAMPLES: Final = 10_000
SEED: Final = 0
LEVEL: Final = 0.05
"""Of significance; the intervals hold the other 95 %."""
_DRAWN_AT_A_TIME: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """By how much another model is above the baseline, in the metric's own unit."""

    value: float
    """On the items as they are."""
    low: float
    high: float
    """The 95 % percentile interval."""
    p: float
    """Two-sided: twice the smaller share of draws on either side of 0; never below 2 / (NUM_RESAMPLES + 1)."""

    @property
    def is_significant(self) -> bool:
        """At LEVEL, for this one comparison."""
        return self.p < LEVEL


def accuracy_difference(baseline: Sequence[bool], other: Sequence[bool]) -> Difference:
    """Of the shares of right answers to the same questions."""
    cells, counts = _drawn_cells([np.asarray(baseline, np.int64), np.asarray(other, np.int64)])
    return _difference(counts @ (cells[:, 1] - cells[:, 0]) / len(baseline))


def macro_f1_difference(
    labels: Sequence[Hashable], baseline: Sequence[Hashable], other: Sequence[Hashable]
) -> Difference:
    """Of the macro F1 of answers to questions with these labels."""
    cells, counts = _drawn_cells(_numbered(labels, baseline, other))
    golds, first, second = cells.T
    return _difference(_macro_f1(counts, golds, second) - _macro_f1(counts, golds, first))


def macro_f1_stderr(labels: Sequence[Hashable], answers: Sequence[Hashable]) -> float:
    """The standard error of one model's macro F1."""
    cells, counts = _drawn_cells(_numbered(labels, answers))
    return float(_macro_f1(counts[1:], *cells.T).std(ddof=1))


def bits_per_byte_difference(num_bytes: Numbers, baseline: Floats, other: Floats) -> Difference:
    """Of the bits per byte of the same documents.

    Shapes: all (documents,). Units: bytes of a document's UTF-8, and its nats by each model.
    """
    bits = (other - baseline) / math.log(2)
    random = np.random.default_rng(SEED)
    step = max(1, _DRAWN_AT_A_TIME // len(bits))
    parts = [np.atleast_1d(bits.sum() / num_bytes.sum())]
    for start in range(0, NUM_RESAMPLES, step):
        size = (min(step, NUM_RESAMPLES - start), len(bits))
        drawn = random.integers(len(bits), size=size)  # (draws, documents)
        parts.append(bits[drawn].sum(axis=1) / num_bytes[drawn].sum(axis=1))
    return _difference(np.concatenate(parts))


def _numbered(*columns: Sequence[Hashable]) -> list[Numbers]:
    """Every answer as a number, the same in all columns."""
    numbers = {answer: number for number, answer in enumerate(dict.fromkeys(chain(*columns)))}
    return [np.asarray([numbers[answer] for answer in column]) for column in columns]


def _drawn_cells(columns: Sequence[Numbers]) -> tuple[Numbers, Floats]:
    """The distinct rows of the columns, (cells, columns), and how often each occurs: (1 + draws, cells).

    The first line of counts is of the items as they are. Items of one cell are alike to every metric here, so
    drawing n items with replacement is drawing the counts of their cells from a multinomial distribution.
    """
    cells, observed = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    num_items = int(observed.sum())
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(num_items, observed / num_items, size=NUM_RESAMPLES)
    return cells, np.vstack([observed, drawn]).astype(np.float64)


def _macro_f1(counts: Floats, golds: Numbers, answers: Numbers) -> Floats:
    """As scikit-learn's f1_score(average="macro"): of the labels that a draw has as a label or as an answer.

    Shapes: counts (draws, cells); golds, answers (cells,); the result (draws,).
    """
    every = np.unique([golds, answers])
    is_gold = golds[:, None] == every  # (cells, labels)
    is_answer = answers[:, None] == every
    right = counts @ (is_gold & is_answer)  # (draws, labels)
    occurring = counts @ is_gold + counts @ is_answer
    f1 = np.divide(2 * right, occurring, out=np.zeros(right.shape), where=occurring > 0)
    return np.asarray(f1.sum(axis=1) / (occurring > 0).sum(axis=1))


def _difference(found: Floats) -> Difference:
    """From the difference of the items as they are, which comes first, and those of the draws."""
    drawn = np.round(found[1:], 12)  # what is 0 but for rounding lies on both sides
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    fewer = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (fewer + 1) / (len(drawn) + 1))
    return Difference(value=float(found[0]), low=float(low), high=float(high), p=p)
