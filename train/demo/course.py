"""The demo from start to end: write the text, train on it, examine what was learnt."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from malmoi.errors import RecipeError
from train.demo.conversations import conversations, sentences
from train.demo.examination import Report, examine, held_out_questions
from train.generation import Answerer
from train.recipe import Recipe
from train.recipes.demo import DEMO
from train.training import train_chat_model

NUM_CONVERSATIONS: Final = 23_000
NUM_SENTENCES: Final = 2_000
REQUIRED_ACCURACY: Final = 0.9
OVERALL: Final = "held_out_accuracy"


def teach(out: Path, *, seed: int, overwrite: bool = False, recipe: Recipe = DEMO) -> Mapping[str, float]:
    """Trains the demo model into `out`; its metrics, the accuracy on held-out questions first.

    Raises: RecipeError if the model answers too few held-out questions right; then nothing is left.
    """
    metrics: dict[str, float] = {}

    def measure(directory: Path) -> Mapping[str, float]:
        report = examine(Answerer(directory), held_out_questions())
        print_report(report)
        metrics.update(passed(report, seed))
        return metrics

    train_chat_model(
        recipe,
        conversations(NUM_CONVERSATIONS, seed),
        sentences(NUM_SENTENCES, seed),
        out,
        seed=seed,
        overwrite=overwrite,
        examine=measure,
    )
    return metrics


def passed(report: Report, seed: int) -> dict[str, float]:
    """The report as metrics.

    Raises: RecipeError if its accuracy is below the bar.
    """
    if report.accuracy < REQUIRED_ACCURACY:
        raise RecipeError(
            f"the demo trained with seed {seed}",
            expected=f"{REQUIRED_ACCURACY:.0%} of the held-out questions answered right",
            found=f"{report.accuracy:.1%}",
            next_step="nothing was saved; try another --seed, and compare library versions with docs/train.md",
        )
    of_kinds = {f"{OVERALL}/{kind}": round(report.accuracy_of(kind), 4) for kind in report.asked}
    return {OVERALL: round(report.accuracy, 4)} | of_kinds


def print_report(report: Report) -> None:
    """A line for each kind, on stderr."""
    for kind, asked in report.asked.items():
        print(f"{kind:15} {report.right[kind]:3} of {asked:3} held-out questions right", file=sys.stderr)
