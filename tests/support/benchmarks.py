"""A few rows of KoBEST in its authors' columns, and lm-evaluation-harness called directly."""

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
NOUNS = ("학교", "서울", "바다", "친구", "도서관", "사과", "우유", "어머니")
ENDINGS = ("갔습니다", "읽었습니다", "맑고 바람이 붑니다", "샀습니다")


def kobest_rows(num_rows: int, *, first: int = 0) -> dict[str, list[Row]]:
    """Rows of each task as KoBEST's authors name the columns; those from another `first` are others."""
    pairs = list(product(NOUNS, ENDINGS))[first : first + num_rows]
    sentences = [f"{noun}에 {ending}" for noun, ending in pairs]
    found: dict[str, list[Row]] = {name: [] for name in ("BoolQ", "COPA", "HellaSwag", "SentiNeg", "WiC")}
    for number, ((noun, ending), sentence) in enumerate(zip(pairs, sentences, strict=True), first):
        found["BoolQ"].append(
            {"Text": sentence, "Question": f"{noun}인가?", "Answer": ("TRUE", "False")[number * 7 % 3 % 2]}
        )
        found["COPA"].append(
            {
                "sentence": sentence,
                "question": ("원인", "결과")[number % 2],
                "1": f"{noun}가 좋다.",
                "2": f"오늘은 {ending}",
                "Answer": str(1 + number * 5 % 3 % 2),
            }
        )
        choices = {f"choice{place}": f"{NOUNS[(number + place) % 8]}에서 {ending}" for place in range(1, 5)}
        found["HellaSwag"].append({"context": sentence, **choices, "label": str(number * 3 % 4)})
        found["SentiNeg"].append({"Text": sentence, "Label": str(number * 7 % 5 % 2)})
        found["WiC"].append(
            {
                "Target": noun,
                "SENTENCE1": f"[{noun}]에 {ending}",
                "SENTENCE2": f"내일은 [{noun}]로 갑니다",
                "ANSWER": ("True", "False")[number * 11 % 7 % 2],
            }
        )
    return found


def write_kobest(folder: Path, *, num_rows: int = 9, num_examples: int = 12) -> Path:
    """KoBEST as published: three tasks with a test split, BoolQ and HellaSwag with a dev split alone."""
    folder.mkdir(exist_ok=True)
    asked, examples = kobest_rows(num_rows), kobest_rows(num_examples, first=num_rows)
    for name in asked:
        split = "dev" if name in ("BoolQ", "HellaSwag") else "test"
        write_rows(folder / f"{name}.{split}.jsonl.gz", asked[name])
        write_rows(folder / f"{name}.train.jsonl.gz", examples[name])
    return folder


def write_rows(file: Path, rows: Sequence[Row]) -> Path:
    """JSON lines, packed if the name says so."""
    with gzip.open(file, "wt") if file.suffix == ".gz" else file.open("w") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return file


def ask_harness(
    model: Path,
    folders: Sequence[str],
    data: Mapping[str, Mapping[str, Sequence[Row]]],
    shots: int,
    *,
    batch_size: int = 1,
    limit: int | None = None,
) -> dict[str, dict[str, float]]:
    """What lm-evaluation-harness says of a checkpoint directory, through nothing of ours.

    `folders`: of the harness's tasks. `data`: rows of each task's splits, in the Hub's columns.
    """
    os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")  # it looks for its f1, which it does not use, on the Hub

    from datasets import Dataset, DatasetDict
    from lm_eval import simple_evaluate, tasks
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    root = Path(tasks.__file__).parent
    manager = TaskManager(include_defaults=False, include_path=[str(root / folder) for folder in folders])

    def spec(task: str) -> dict[str, Any]:
        splits = DatasetDict({name: Dataset.from_list(list(rows)) for name, rows in data[task].items()})
        return {"task": task, "custom_dataset": lambda **_: splits}

    found = simple_evaluate(
        HFLM(pretrained=str(model), batch_size=batch_size, device="cpu"),
        tasks=[{"group": "direct", "task": [spec(task) for task in data]}],
        num_fewshot=shots,
        task_manager=manager,
        limit=limit,
        log_samples=False,
        bootstrap_iters=1000,
    )
    assert found is not None
    return {task: dict(found["results"][task]) for task in data}
