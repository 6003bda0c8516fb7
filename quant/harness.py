"""Asks a model the questions of a benchmark through lm-evaluation-harness, with its own prompts, offline."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRIC: Final = "f1"
"""Macro F1, as the tables of polyglot-ko have it; it shows a model that always gives the same answer."""
ROWS: Final = 16


def kobest_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, float]:
    """Macro F1 of each task of malmoi.kobest.questions, without examples in the prompt."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with _quiet():
        manager = TaskManager(include_defaults=False, include_path=str(_folder()))
        found = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=ROWS),
            tasks=[{"group": "local", "task": [_task(name, rows) for name, rows in questions.items()]}],
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=0,
        )
    assert found is not None, "this is the only process"
    return {task: float(found["results"][f"kobest_{task}"][f"{METRIC},none"]) for task in questions}


def _task(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The harness's own task with these rows in place of the Hub's, and the one metric."""
    from datasets import Dataset
    from lm_eval.tasks.kobest.utils import macro_f1_score

    data = Dataset.from_list(list(rows))
    return {
        "task": f"kobest_{name}",
        "custom_dataset": lambda **_metadata: {"test": data},
        "training_split": None,
        "validation_split": None,
        "metric_list": [{"metric": METRIC, "aggregation": macro_f1_score, "higher_is_better": True}],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The harness tells of every default it takes, and draws its bars even where no one looks."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stderr(sys.stderr if sys.stderr.isatty() else nowhere),
        ):
            yield
    finally:
        logger.setLevel(before)


def _folder() -> Path:
    from lm_eval import tasks

    return Path(tasks.__file__).parent / "kobest"
