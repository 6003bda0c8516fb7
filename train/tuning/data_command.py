"""`malmoi-train data`, behind its options."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from malmoi.errors import RecipeError
from malmoi.files import create_directory, refuse_existing, write_whole
from train.tuning.data_report import report_files
from train.tuning.preparation import AnyExample, Kind, Preparation, Prepared, prepare

TRAIN: Final = "train.jsonl"
HELD_OUT: Final = "held_out.jsonl"


def kind_and_corpus(dialogues: tuple[str, ...], preferences: tuple[str, ...]) -> tuple[Kind, tuple[str, ...]]:
    """Which of the two is asked for, and of what.

    Raises: RecipeError if neither or both are.
    """
    if bool(dialogues) == bool(preferences):
        raise RecipeError(
            "options",
            expected="either --dialogues or --preferences",
            found="both" if dialogues else "neither",
            next_step="name files after one of them",
        )
    return ("dialogues", dialogues) if dialogues else ("preferences", preferences)


def run(preparation: Preparation, out: Path, *, overwrite: bool = False) -> Prepared:
    """Prepares the rows into `out`: train.jsonl, held_out.jsonl, report.md and report.json.

    Raises: OutputError for an `out` that exists, before anything is read; CorpusError as `prepare` does.
    """
    refuse_existing(out, overwrite, inputs=preparation.corpus)
    prepared = prepare(preparation)
    with create_directory(out, overwrite=overwrite) as partial:
        _write_rows(partial / TRAIN, prepared.train)
        _write_rows(partial / HELD_OUT, prepared.held_out)
        for name, content in report_files(prepared).items():
            write_whole(partial / name, content)
    return prepared


def _write_rows(file: Path, examples: Iterable[AnyExample]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for example in examples:
            lines.write(json.dumps(example.as_row(), ensure_ascii=False) + "\n")


def summary(prepared: Prepared) -> str:
    """What a run came to, on a line."""
    num_bad = sum(len(part.rows.bad) + len(part.masked.lost) for part in prepared.parts)
    num_copies = sum(part.num_copies for part in prepared.parts)
    num_masked = sum(part.masked.counts.total() for part in prepared.parts)
    result = (
        f"{len(prepared.train):,} {prepared.preparation.kind} to train on, {len(prepared.held_out):,} held out"
    )
    return f"{result}; left out: {num_bad:,} bad rows, {num_copies:,} copies; masked: {num_masked:,}"
