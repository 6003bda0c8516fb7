"""The word table: every distinct word of a corpus and how often it occurs, whatever the corpus's size.

A *word* begins where a run of spaces follows something that is not white space, or one space alone follows
white space of another kind; it keeps its leading spaces, so the words of a text, joined, are the text. No
tokenizer of the three families that train.vocabulary grows joins two words in one token, so that a
tokenizer's counts over a corpus follow from its counts over the table, and one table serves every base.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

NUM_PARTITIONS: Final = 64
"""A table is merged a partition at a time: the greatest corpus needs memory for 1/64 of its words."""
CHARACTERS_AT_ONCE: Final = 1 << 24
"""Of text, counted together; less where the budget is small."""
BYTES_PER_CHARACTER: Final = 24
"""About what counting takes while it lasts: text, words and the table of them."""
ROWS_AT_ONCE: Final = 1 << 18
BOUNDARY: Final = re.compile(r"(?<=\S)(?= )|(?<=[^\S ])(?= (?! ))")
A_SPACE: Final = pa.scalar(" ", pa.large_string())
NOTHING: Final = pa.scalar("", pa.large_string())
SCHEMA: Final = pa.schema([("word", pa.large_string()), ("count", pa.int64()), ("first", pa.int64())])
"""`first`: how many of `count` begin a text, where some tokenizers put a space."""
Ints = npt.NDArray[np.int64]


def split_words(text: str) -> list[str]:
    """The words of `text`; joined, they are `text`."""
    return BOUNDARY.split(text)


class WordCounter(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Counts the words of this task's documents into `folder`, in files of at most `memory_bytes` of words.

    A file `RANK-NUMBER.arrow` holds NUM_PARTITIONS record batches of SCHEMA; a word is in the partition
    that `_partition` gives it, in every file.
    """

    type = "📊 - STATS"
    name = "malmoi words"

    def __init__(self, folder: Path, *, memory_bytes: int) -> None:
        super().__init__()
        self.folder = folder
        self.memory_bytes = memory_bytes

    def run(
        self,
        data: DocumentsPipeline,
        rank: int = 0,
        world_size: int = 1,  # noqa: ARG002
    ) -> Iterator[Document]:
        """Passes the documents on; the counts are on disk when it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{rank:05d}-*"):  # of a run that was killed
            leftover.unlink()
        at_once = min(CHARACTERS_AT_ONCE, self.memory_bytes // BYTES_PER_CHARACTER)
        tables: list[pa.Table] = []
        waiting: list[str] = []
        num_characters = num_spills = 0
        for document in data:
            waiting.append(document.text)
            num_characters += len(document.text)
            if num_characters >= at_once:
                tables = [add_up([*tables, count_words(waiting)])]
                waiting, num_characters = [], 0
                if tables[0].nbytes > self.memory_bytes // 2:
                    _spill(tables[0], self.folder / f"{rank:05d}-{num_spills:04d}.arrow")
                    tables = []
                    num_spills += 1
            yield document
        rest = add_up([*tables, count_words(waiting)])
        _spill(rest, self.folder / f"{rank:05d}-{num_spills:04d}.arrow")


def count_words(texts: Sequence[str]) -> pa.Table:
    """The words of the texts and their counts; some rows may be of the same word."""
    array = pa.array(texts, pa.large_string())
    has_run = pc.match_substring(array, "  ")
    # Where no two spaces stand together, and that is nearly everywhere, a word begins at every space.
    split = pc.split_pattern(array.filter(pc.invert(has_run)), " ")
    words, starts = split.values, split.offsets.to_numpy()[:-1]
    is_first = np.zeros(len(words), bool)
    is_first[starts] = True
    firsts, others = words.filter(pa.array(is_first)), words.filter(pa.array(~is_first))
    # Where a text begins with a space, what stands before it is no word, and the next one is the first.
    is_second = np.zeros(len(words), bool)
    empty = starts[pc.equal(words.take(pa.array(starts)), "").to_numpy(zero_copy_only=False)]
    is_second[empty[empty + 1 < len(words)] + 1] = True
    seconds = others.filter(pa.array(is_second[~is_first]))
    others = others.filter(pa.array(~is_second[~is_first]))
    by_hand = [split_words(text) for text in array.filter(has_run).to_pylist()]
    tables = [
        _table(firsts, is_first=True),
        _table(seconds, is_first=True, before=A_SPACE),
        _table(others, before=A_SPACE),
        _table(pa.array([words[0] for words in by_hand], pa.large_string()), is_first=True),
        _table(pa.array([word for words in by_hand for word in words[1:]], pa.large_string())),
    ]
    table = pa.concat_tables(tables)
    return table.filter(pc.not_equal(table["word"], ""))


def _table(words: pa.LargeStringArray, *, is_first: bool = False, before: pa.Scalar = NOTHING) -> pa.Table:
    """The distinct words, each behind `before`, and their counts."""
    counted = words.value_counts()
    counts = counted.field("counts")
    firsts = counts if is_first else pa.array(np.zeros(len(counts), np.int64))
    return pa.table(
        [pc.binary_join_element_wise(before, counted.field("values"), NOTHING), counts, firsts], schema=SCHEMA
    )


def add_up(tables: Iterable[pa.Table]) -> pa.Table:
    """One row for each word of the tables, in the order in which they first occur."""
    table = pa.concat_tables(tables).combine_chunks()
    if not table.num_rows:
        return table
    encoded = table["word"].chunk(0).dictionary_encode()
    totals = []
    for name in ("count", "first"):
        total = np.zeros(len(encoded.dictionary), np.int64)
        np.add.at(total, encoded.indices.to_numpy(), table[name].chunk(0).to_numpy())
        totals.append(pa.array(total))
    return pa.table([encoded.dictionary, *totals], schema=SCHEMA)


def _spill(table: pa.Table, path: Path) -> None:
    """Writes the counts, a partition to a record batch."""
    partition = _partition(table["word"].combine_chunks())
    table = table.take(pa.array(np.argsort(partition, kind="stable"))).combine_chunks()
    sizes = np.bincount(partition, minlength=NUM_PARTITIONS)
    with pa.ipc.new_file(path, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as file:
        start = 0
        for size in sizes.tolist():
            batches = table.slice(start, size).to_batches(max_chunksize=max(size, 1))
            file.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=SCHEMA))
            start += size


def _partition(words: pa.LargeStringArray) -> Ints:
    """A number below NUM_PARTITIONS for each word, from its bytes alone."""
    if not len(words):
        return np.zeros(0, np.int64)
    offsets, data = text_buffers(words)
    return np.add.reduceat(data, offsets[:-1], dtype=np.int64) % NUM_PARTITIONS


def text_buffers(words: pa.LargeStringArray) -> tuple[Ints, npt.NDArray[np.uint8]]:
    """Where each word begins and, last, where the last one ends, and all their UTF-8 bytes.

    Shapes: (words + 1,) and (bytes,); nothing is copied.
    """
    _, offsets, data = words.buffers()
    start = words.offset
    bounds = np.frombuffer(offsets, np.int64)[start : start + len(words) + 1]
    return bounds - bounds[0], np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]


def merge_words(files: Iterable[Path], out: Path) -> int:
    """Adds up the counters' files into one Parquet table of SCHEMA and returns the number of its rows.

    Rows are ordered by partition, then by word: the same corpus gives the same bytes, however it was cut.
    """
    readers = [pa.ipc.open_file(pa.memory_map(str(file))) for file in sorted(files)]
    cores = os.cpu_count() or 1

    def merged(partition: int) -> pa.Table:
        batches = [reader.get_batch(partition) for reader in readers]
        return add_up([pa.Table.from_batches(batches, SCHEMA)]).sort_by("word")

    partial = out.with_name(out.name + ".partial")
    num_words = 0
    with (
        ThreadPoolExecutor(cores) as pool,
        pa.parquet.ParquetWriter(partial, SCHEMA, compression="zstd", use_dictionary=False) as writer,
    ):
        for first in range(0, NUM_PARTITIONS, cores):  # only as many partitions in memory as are worked on
            for table in pool.map(merged, range(first, min(first + cores, NUM_PARTITIONS))):
                writer.write_table(table)
                num_words += table.num_rows
    partial.replace(out)
    return num_words


def read_words(path: Path) -> Iterator[pa.RecordBatch]:
    """The table's rows, a batch of them at a time."""
    yield from pa.parquet.ParquetFile(path).iter_batches(ROWS_AT_ONCE)
