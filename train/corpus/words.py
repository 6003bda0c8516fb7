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
import pyarrow.parquet
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def _are_in(numbers: Iterable[int]) -> Bools:
    """(256,): a mask of bytes."""
    mask = np.zeros(256, bool)
    mask[list(numbers)] = True
    return mask


NUM_PARTITIONS: Final = 64
"""A table is merged a partition at a time: the greatest corpus needs memory for 1/64 of its words."""
CHARACTERS_AT_ONCE: Final = 1 << 24
"""Of text, counted together; less where the budget is small."""
BYTES_PER_CHARACTER: Final = 24
"""About what counting takes while it lasts: text, words and the table of them."""
ROWS_AT_ONCE: Final = 1 << 18
BOUNDARY: Final = re.compile(r"(?<=\S)(?= )|(?<=[^\S ])(?= (?! ))")
SPACE: Final = ord(" ")
WHITE: Final = [chr(code).encode() for code in range(0x3001) if chr(code).isspace() and chr(code) != " "]
"""All white space but the space."""
WIDE_WHITE: Final = tuple(code for code in WHITE if len(code) > 1)
IS_WHITE: Final = _are_in(code[0] for code in WHITE if len(code) == 1)
IS_LAST_OF_WHITE: Final = _are_in(code[-1] for code in WIDE_WHITE)
IS_SECOND_OF_WHITE: Final = _are_in(code[-2] for code in WIDE_WHITE)
SCHEMA: Final = pa.schema([("word", pa.large_string()), ("count", pa.int64()), ("first", pa.int64())])
"""`first`: how many of `count` begin a text, where some tokenizers put a space."""


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
                tables.append(count_words(waiting))
                waiting, num_characters = [], 0
                if sum(table.nbytes for table in tables) > self.memory_bytes // 2:
                    tables = [add_up(tables)]
                    if tables[0].nbytes > self.memory_bytes // 4:
                        _spill(tables.pop(), self.folder / f"{rank:05d}-{num_spills:04d}.arrow")
                        num_spills += 1
            yield document
        rest = add_up([*tables, count_words(waiting)])
        _spill(rest, self.folder / f"{rank:05d}-{num_spills:04d}.arrow")


def count_words(texts: Sequence[str]) -> pa.Table:
    """The words of the texts, in the order in which they first occur, and their counts."""
    bounds, data = text_buffers(pa.array(texts, pa.large_string()))
    text_starts = np.unique(bounds[:-1][np.diff(bounds) > 0])
    begins = np.zeros(len(data) + 1, bool)
    begins[text_starts] = begins[len(data)] = True
    begins[_word_starts(data, begins)] = True
    offsets = np.flatnonzero(begins)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    encoded = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers).dictionary_encode()
    words, numbers = encoded.dictionary, encoded.indices.to_numpy()
    firsts = numbers[np.searchsorted(offsets, text_starts)]
    counts = (np.bincount(of, minlength=len(words)) for of in (numbers, firsts))
    return pa.table([words, *map(pa.array, counts)], schema=SCHEMA)


def _word_starts(data: Bytes, begins: Bools) -> Ints:
    """Where in texts of UTF-8 bytes, end to end, a word begins: what BOUNDARY says, at every space at once.

    `begins` (bytes + 1,): where a text begins, and where the last one ends.
    """
    places = np.flatnonzero(data == SPACE)
    places = places[~begins[places]]
    is_start = data[places - 1] != SPACE
    after_white = np.flatnonzero(_ends_white_space(data, places))
    following = np.append(data, 0)[places[after_white] + 1]
    is_start[after_white] = (following != SPACE) | begins[places[after_white] + 1]
    starts: Ints = places[is_start]
    return starts


def _ends_white_space(data: Bytes, places: Ints) -> Bools:
    """Whether what ends before each place is white space that is no space."""
    before = data[places - 1]
    found = IS_WHITE[before]
    wide = np.flatnonzero(IS_LAST_OF_WHITE[before])
    wide = wide[IS_SECOND_OF_WHITE[data[places[wide] - 2]]]
    for number in wide.tolist():  # few are left, and of them most are white space
        start = places[number]
        found[number] = data[max(start - 3, 0) : start].tobytes().endswith(WIDE_WHITE)
    return found


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
    """A number below NUM_PARTITIONS for each word, from its length, its middle byte and its last alone."""
    offsets, data = text_buffers(words)
    starts, ends = offsets[:-1], offsets[1:]
    mixed: Ints = 7 * data[(starts + ends) // 2].astype(np.int64) + data[ends - 1] + ends - starts
    return mixed % NUM_PARTITIONS


def text_buffers(words: pa.LargeStringArray) -> tuple[Ints, Bytes]:
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
