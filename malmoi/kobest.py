"""KoBEST out of local files: rows as its authors publish them, under the names that the Hub's copy gives them.

Source: SKT-LSL/KoBEST_datarepo, v1.0 (its columns, and True or TRUE for the same); skt/kobest_v1 (the names).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from malmoi.errors import CorpusError
from malmoi.json_lines import json_lines

Row = Mapping[str, str]

SPLITS: Final = ("test", "dev")
"""The one that is asked first; published numbers are of the test split."""
HUB_SPLITS: Final[Mapping[str, str]] = {"train": "train", "test": "test", "dev": "validation"}
"""What the Hub's copy calls its authors' splits."""


def _is_true(answer: str) -> int:
    word = answer.strip().lower()
    if word not in ("true", "false"):
        raise ValueError(f"the answer {answer!r}, neither true nor false")
    return int(word == "true")


RENAMED: Final[Mapping[str, tuple[str, Callable[[Row], dict[str, Any]]]]] = {
    "boolq": (
        "BoolQ",
        lambda row: {
            "paragraph": row["Text"],
            "question": row["Question"],
            "label": _is_true(row["Answer"]),
        },
    ),
    "copa": (
        "COPA",
        lambda row: {
            "premise": row["sentence"],
            "question": row["question"],
            "alternative_1": row["1"],
            "alternative_2": row["2"],
            "label": int(row["Answer"]) - 1,
        },
    ),
    "hellaswag": (
        "HellaSwag",
        lambda row: {
            "context": row["context"],
            **{f"ending_{number}": row[f"choice{number}"] for number in (1, 2, 3, 4)},
            "label": int(row["label"]),
        },
    ),
    "sentineg": ("SentiNeg", lambda row: {"sentence": row["Text"], "label": int(row["Label"])}),
    "wic": (
        "WiC",
        lambda row: {
            "word": row["Target"],
            "context_1": row["SENTENCE1"],
            "context_2": row["SENTENCE2"],
            "label": _is_true(row["ANSWER"]),
        },
    ),
}
"""Of each task the authors' name for it, and how a row of theirs becomes one of the Hub's."""


def file_of(folder: Path, task: str, split: str) -> Path | None:
    """The authors' file of a task's split, NAME.SPLIT.jsonl.gz or .jsonl; None where it is not there."""
    names = (f"{RENAMED[task][0]}.{split}.jsonl{packed}" for packed in (".gz", ""))
    return next((folder / name for name in names if (folder / name).exists()), None)


def questions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The questions of every task of which a file is in `folder`, of the first split of SPLITS that is there.

    Raises: CorpusError if there is none, or one cannot be read.
    """
    files = {
        task: file
        for task in RENAMED
        if (file := next(filter(None, (file_of(folder, task, split) for split in SPLITS)), None))
    }
    if not files:
        raise CorpusError(
            folder,
            expected="KoBEST's files, as BoolQ.test.jsonl.gz",
            found="none",
            next_step="name the directory that holds them, or leave --kobest out",
        )
    return {task: read_rows(file, task) for task, file in files.items()}


def read_rows(file: Path, task: str) -> list[dict[str, Any]]:
    """The rows of an authors' file. Raises: CorpusError if one of them is none of the task's."""
    renamed, rows = RENAMED[task][1], []
    for number, row in json_lines(file):
        try:
            rows.append(renamed(row))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            found = f"no column {error}" if isinstance(error, KeyError) else str(error)
            raise CorpusError(
                f"{file}:{number}",
                expected=f"a row with the columns of {RENAMED[task][0]}",
                found=found,
                next_step="copy the file again, with all of its columns",
            ) from error
    return rows
