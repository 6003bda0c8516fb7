"""Counts a corpus: shards to word table, on this machine's cores, restartable at the shard.

On a cluster the same two steps, TextReader and WordCounter, run under datatrove's Slurm or Ray executor;
see docs/vocabulary.md.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from malmoi.errors import CorpusError
from malmoi.files import write_whole
from train.corpus.reading import OnBadLine, Reading, TextReader
from train.corpus.running import run_tasks, start_over_unless, workers_for
from train.corpus.shards import Shard, identity
from train.corpus.words import WordCounter, merge_words

TABLE_FILE: Final = "words.parquet"
SUMMARY_FILE: Final = "corpus.json"
SHARE_OF_WORDS: Final = 0.2
"""Of a worker's memory, what its word table may take; text, arrow's copies and the libraries take the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A counted corpus."""

    table: Path
    """Parquet of words.SCHEMA."""
    num_words: int
    """Distinct ones."""
    num_texts: int
    num_bytes: int
    """Of the texts, in UTF-8."""
    num_empty: int
    num_normalised: int
    bad_lines: dict[str, int] = field(default_factory=dict)
    """Lines left out, by what was wrong with them."""
    examples: list[str] = field(default_factory=list)
    """The first of them in each shard."""


def count_corpus(
    shards: Sequence[Shard],
    folder: Path,
    *,
    text_field: str = "text",
    on_bad_line: OnBadLine = "refuse",
    memory_bytes: int,
    num_workers: int | None = None,
) -> Corpus:
    """The word table of `shards` in `folder`; shards that an interrupted run has counted are not read again.

    Raises: CorpusError for a bad line where they are refused, a file that cannot be read, or no text at all.
    """
    num_workers = workers_for(len(shards), num_workers)
    plan = {
        "shards": list(map(identity, shards)),
        "text_field": text_field,
        "on_bad_line": on_bad_line,
    }
    start_over_unless(folder, plan)
    if not (folder / SUMMARY_FILE).exists():
        memory = int(memory_bytes / num_workers * SHARE_OF_WORDS)
        pipeline = [
            TextReader(shards, folder / "readings", text_field=text_field, on_bad_line=on_bad_line),
            WordCounter(folder / "counts", memory_bytes=memory),
        ]
        weights = [shard.num_bytes for shard in shards]
        run_tasks(pipeline, weights, folder / "tasks", "counting words", num_workers=num_workers)
        _summarise(folder)
        shutil.rmtree(folder / "counts")
    return Corpus(table=folder / TABLE_FILE, **json.loads((folder / SUMMARY_FILE).read_text()))


def _summarise(folder: Path) -> None:
    """Merges the counts and adds up the readings; the summary is the mark that all is there."""
    records = (json.loads(file.read_text()) for file in sorted((folder / "readings").glob("*.json")))
    readings = [Reading(**(record | {"bad": Counter(record["bad"])})) for record in records]
    num_texts = sum(reading.num_texts for reading in readings)
    bad = sum((reading.bad for reading in readings), Counter[str]())
    if not num_texts:
        raise CorpusError(
            readings[0].shard if readings else folder,
            expected="texts",
            found="none" + "".join(f"; {kind}: {count}" for kind, count in bad.items()),
            next_step="name the field that holds the text with --text-field",
        )
    summary = {
        "num_words": merge_words((folder / "counts").glob("*.arrow"), folder / TABLE_FILE),
        "num_texts": num_texts,
        "num_bytes": sum(reading.num_bytes for reading in readings),
        "num_empty": sum(reading.num_empty for reading in readings),
        "num_normalised": sum(reading.num_normalised for reading in readings),
        "bad_lines": dict(bad),
        "examples": [example for reading in readings for example in reading.examples],
    }
    write_whole(folder / SUMMARY_FILE, json.dumps(summary, ensure_ascii=False))
