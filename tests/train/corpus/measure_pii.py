"""Recall and precision of the masker on generated cases: `python -m tests.train.corpus.measure_pii [SEED]`."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.pii_cases import Case, make_cases
from train.corpus.pii import TOKENS, find_pii

SEED = 2026
NUM_CASES = 2500
"""With something personal in them, and as many without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How many were found: the kind and both ends must be right."""

    right: int
    missed: int
    wrong: int

    @property
    def recall(self) -> float:
        """Of what is there, the share that was found."""
        return self.right / (self.right + self.missed)

    @property
    def precision(self) -> float:
        """Of what was found, the share that is there."""
        return self.right / (self.right + self.wrong)


def score(cases: Sequence[Case]) -> dict[str, Score]:
    """The masker's score by kind, and that of all together."""
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for case in cases:
        found = {(finding.kind, finding.start, finding.end) for finding in find_pii(case.text)}
        labels = set(case.labels)
        for counter, entries in ((right, found & labels), (missed, labels - found), (wrong, found - labels)):
            for kind, *_ in entries:
                counter.update((kind, "all"))
    return {kind: Score(right=right[kind], missed=missed[kind], wrong=wrong[kind]) for kind in (*TOKENS, "all")}


def main() -> None:
    """Prints the table."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SEED
    print("| | labelled | recall | precision |\n| --- | --- | --- | --- |")
    for kind, entry in score(make_cases(seed, NUM_CASES, NUM_CASES)).items():
        print(f"| {kind} | {entry.right + entry.missed:,} | {entry.recall:.4f} | {entry.precision:.4f} |")


if __name__ == "__main__":
    main()
