"""Rows out of files of JSON lines."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from malmoi.errors import CorpusError


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every row of the file, plain or .gz, and the line it is on.

    Raises: CorpusError for the first line that holds none, or where the file breaks off.
    """
    number = 0
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{type(row).__name__}, which is no row")
                yield number, row
    except (OSError, EOFError, ValueError) as error:
        raise CorpusError(
            f"{file}:{number}",
            expected="JSON lines, a row on each",
            found=f"{type(error).__name__}: {error}",
            next_step="copy the file again",
        ) from error
