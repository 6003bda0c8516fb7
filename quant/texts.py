"""Texts and dialogues out of the files that corpora and instructions are published in."""

import glob
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from malmoi.chat import Message, Role
from malmoi.errors import CorpusError

Text = str | tuple[Message, ...]
"""Running text, or a dialogue."""
Row = Mapping[str, Any]

FORMATS: Final = (".txt", ".jsonl", ".json", ".parquet")
COMPRESSIONS: Final = (".gz", ".zst")
REPORT_FILES: Final = ("report.json", "report.md")
"""Side by side in a directory that malmoi-train wrote; no text of it."""
ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
"""What publishers call them."""
ROWS_AT_ONCE: Final = 1000


def read_texts(paths: Sequence[str]) -> Iterator[Text]:
    """Every text of the files, in their order; those without a letter are passed over.

    A path is a file, a directory of files, or a glob. Of a .txt file each line is a text; .jsonl, .json (one
    object on each line, or one list) and .parquet hold rows with `messages`, `conversations`, `instruction`
    (and `input`, `output`), `text` or `prompt`. All but Parquet may be packed (.gz, .zst).

    Raises: CorpusError for a path that names nothing, and for the first row that holds no text, by its line.
    """
    for file in find_files(paths):
        try:
            yield from _read(file)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise _unreadable(file, error) from error


def find_files(paths: Sequence[str]) -> list[Path]:
    """The files that the paths name, each once. Raises: CorpusError for a path that names none."""
    found = [file for path in paths for file in _files_of(path)]
    return list(dict.fromkeys(found))


def _files_of(entry: str) -> list[Path]:
    path = Path(entry)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_text(file))
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(name) for name in glob.glob(entry, recursive=True))  # noqa: PTH207  # an absolute one, too
    unknown = [file for file in files if _format(file) not in FORMATS]
    if unknown or not files:
        raise CorpusError(
            unknown[0] if unknown else entry,
            expected=f"a file, directory or glob ({', '.join(FORMATS)}; also .gz, .zst)",
            found="another format" if unknown else "nothing there",
            next_step="convert the file" if unknown else "check the path, and quote a glob",
        )
    return files


def _is_text(file: Path) -> bool:
    is_report = file.name in REPORT_FILES and all(file.with_name(name).is_file() for name in REPORT_FILES)
    return _format(file) in FORMATS and not is_report


def _format(file: Path) -> str:
    return (file.with_suffix("") if file.suffix in COMPRESSIONS else file).suffix


def _read(file: Path) -> Iterator[Text]:
    if _format(file) == ".txt":
        with _opened(file) as lines:
            yield from filter(str.strip, (line.decode().rstrip("\r\n") for line in lines))
        return
    for number, row in _rows(file):
        try:
            text = text_of(row)
        except ValueError as error:
            raise CorpusError(
                f"{file}:{number}",
                expected="a row with messages, conversations, instruction, text or prompt",
                found=str(error),
                next_step="mend the row, or leave it out",
            ) from None
        if _has_letters(text):
            yield text


def text_of(row: object) -> Text:
    """What a row holds. Raises: ValueError saying why it is nothing."""
    if not isinstance(row, dict):
        raise ValueError(f"{type(row).__name__}, which is no object")
    row = {name: value for name, value in row.items() if value is not None}
    for column in ("messages", "conversations"):
        if column in row:
            return _system(row) + _turns(row[column])
    if "instruction" in row:
        return _exchange(row)
    for column in ("text", "prompt"):
        if column in row:
            return _text(row, column)
    raise ValueError(f"the columns {', '.join(map(str, row)) or 'of an empty row'}")


def _turns(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("no list of turns")
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            raise ValueError("a turn that is no object")
        name, content = str(turn.get("role", turn.get("from"))), turn.get("content", turn.get("value"))
        if name not in ROLES or not isinstance(content, str):
            raise ValueError(f"a turn of {name!r} that says {type(content).__name__}")
        turns.append(Message(ROLES[name], content))
    return tuple(turns)


def _exchange(row: Row) -> tuple[Message, ...]:
    """Instruction and input are joined by one blank, as in training; a row without output is a question."""
    question = " ".join(part for part in (_text(row, "instruction"), _text(row, "input", "")) if part.strip())
    answer = _text(row, "output", "")
    turns = (Message("user", question), Message("assistant", answer))
    return _system(row) + (turns if answer.strip() else turns[:1])


def _system(row: Row) -> tuple[Message, ...]:
    text = _text(row, "system", "")
    return (Message("system", text),) if text.strip() else ()


def _text(row: Row, column: str, default: str | None = None) -> str:
    value = row.get(column, default)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, not text")
    return value


def _has_letters(text: Text) -> bool:
    return bool(text.strip()) if isinstance(text, str) else any(turn.content.strip() for turn in text)


def _rows(file: Path) -> Iterator[tuple[int, object]]:
    """Rows and the lines they are on; in Parquet and in a list the rows are counted."""
    if _format(file) == ".parquet":
        yield from _parquet_rows(file)
        return
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if number == 1 and line.lstrip().startswith(b"["):
                yield from enumerate(_parsed(file, number, line + lines.read()), 1)
                return
            yield number, _parsed(file, number, line.strip())


def _parsed(file: Path, number: int, text: bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{file}:{number + error.lineno - 1}",
            expected="JSON: an object on each line, or one list",
            found=str(error),
            next_step="mend the line",
        ) from None


def _parquet_rows(file: Path) -> Iterator[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        number = 0
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowInvalid as error:
        raise _unreadable(file, error) from error


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file, unpacked."""
    if file.suffix == ".zst":
        import io

        import zstandard

        from quant.frames import Frames

        try:
            with file.open("rb") as packed:
                yield io.BufferedReader(Frames(packed))
        except zstandard.ZstdError as error:
            raise _unreadable(file, error) from error
        return
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as plain:
        yield plain  # type: ignore[misc]  # both are


def _unreadable(file: Path, error: Exception) -> CorpusError:
    return CorpusError(
        file, expected="a whole file", found=f"{type(error).__name__}: {error}", next_step="copy it again"
    )
