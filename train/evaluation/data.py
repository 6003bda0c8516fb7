"""A benchmark's rows out of local files: DIR/TASK.SPLIT.jsonl, plain or .gz, in the Hub's columns.

TASK and SPLIT are the harness's own names (kmmlu_biology.dev.jsonl). Of KoBEST the files of its authors will
do, too (BoolQ.dev.jsonl.gz).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from malmoi import kobest
from malmoi.errors import CorpusError
from malmoi.json_lines import json_lines
from malmoi.provenance import file_digest

SPLITS: Final = ("test_split", "validation_split", "training_split", "fewshot_split")
"""In a task's configuration: the first that is there is asked; examples come from the last, or training."""
KOBEST: Final = "kobest_"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRows:
    """What is there of a task."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    """By the split's name on the Hub."""
    files: Mapping[str, Path]

    @property
    def digest(self) -> str:
        """Of all files."""
        return " ".join(f"{split}:{file_digest(file)}" for split, file in sorted(self.files.items()))


def read_rows(folder: Path, task: str, config: Mapping[str, Any], *, needs_examples: bool) -> LocalRows:
    """The rows of every split that the task's configuration names and whose file is there.

    Raises: CorpusError if nothing can be asked, the examples' split is not there, or a file is no table.
    """
    names = [str(config[split]) for split in SPLITS if config.get(split)]
    files = {name: file for name in dict.fromkeys(names) if (file := file_of(folder, task, name))}
    asked = [str(config[split]) for split in SPLITS[:2] if config.get(split)]
    examples = config.get("fewshot_split") or config.get("training_split")
    missing = asked if not any(name in files for name in asked) else []
    if needs_examples and examples and examples not in files:
        missing = [str(examples)]
    if missing:
        raise CorpusError(
            folder,
            expected=" or ".join(expected_name(task, split) for split in missing),
            found=", ".join(sorted(_similar(folder, task))) or "no file of this task",
            next_step=f"put it there, in the columns of {config.get('dataset_path')}",
        )
    rows = {split: list(_rows(file, task)) for split, file in files.items()}
    for split, file in files.items():
        if not rows[split]:
            raise CorpusError(file, expected="rows", found="none", next_step="copy the file again")
    return LocalRows(rows=rows, files=files)


def file_of(folder: Path, task: str, split: str) -> Path | None:
    """The file of a split, by its name on the Hub; None where it is not there."""
    for name in (f"{task}.{split}.jsonl.gz", f"{task}.{split}.jsonl"):
        if (folder / name).exists():
            return folder / name
    if task.startswith(KOBEST):
        return kobest.file_of(folder, task.removeprefix(KOBEST), _of_authors(split))
    return None


def expected_name(task: str, split: str) -> str:
    """What the file of a split may be called."""
    name = f"{task}.{split}.jsonl[.gz]"
    if not task.startswith(KOBEST):
        return name
    return f"{kobest.RENAMED[task.removeprefix(KOBEST)][0]}.{_of_authors(split)}.jsonl[.gz] (or {name})"


def _of_authors(split: str) -> str:
    """What KoBEST's authors call a split of the Hub's copy."""
    return next(theirs for theirs, ours in kobest.HUB_SPLITS.items() if ours == split)


def _similar(folder: Path, task: str) -> Iterator[str]:
    """Files that may have been meant."""
    names = {task, *([kobest.RENAMED[task.removeprefix(KOBEST)][0]] if task.startswith(KOBEST) else [])}
    for name in names:
        yield from (file.name for file in folder.glob(f"{name}.*"))


def _rows(file: Path, task: str) -> Iterator[Mapping[str, Any]]:
    if not file.name.startswith(f"{task}."):
        yield from kobest.read_rows(file, task.removeprefix(KOBEST))
        return
    columns: frozenset[str] | None = None
    for number, row in json_lines(file):
        columns = columns or frozenset(row)
        if columns != row.keys():
            raise CorpusError(
                f"{file}:{number}",
                expected=f"the columns of the first row ({', '.join(sorted(columns))})",
                found=", ".join(sorted(row)),
                next_step="mend the row",
            )
        yield row
