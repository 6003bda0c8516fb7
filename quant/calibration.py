"""The text that GPTQ is shown: Korean and English, as the checkpoint reads it, with every new token in it.

New tokens are rare: among rows drawn at random most of a grown vocabulary hardly occurs, and weights would be
rounded for inputs that were never seen. So rows are drawn at random first; then those are added that hold what
is still missing, always the one that holds the most of it (greedy cover).
"""

import heapq
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from tqdm import tqdm

from malmoi.checkpoint import Checkpoint
from malmoi.errors import CorpusError
from malmoi.provenance import file_digest, ids_digest
from quant.recipe import Calibration
from quant.texts import Text, find_files, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_ROW_TOKENS: Final = 11
"""GPTQModel leaves out rows of 10 tokens and fewer, whatever least it is told."""
TEXTS_AT_ONCE: Final = 256
Row: TypeAlias = "array[int]"
"""Token ids, in a ninth of a tuple's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSource:
    """Files of text and dialogues, as quant.texts reads them."""

    korean: Sequence[str]
    english: Sequence[str] = ()

    def files(self) -> dict[str, Path]:
        """Each file, by its language and name; a number tells those of one name apart.

        Raises: CorpusError for a path that names nothing, or if none is given.
        """
        found: dict[str, Path] = {}
        for language, paths in (("korean", self.korean), ("english", self.english)):
            for file in find_files(paths):
                name = f"{language}/{file.name}"
                count = sum(1 for other in found.values() if other.name == file.name)
                found[f"{name} ({count + 1})" if name in found else name] = file
        if not found:
            raise CorpusError(
                "--korean",
                expected="text to calibrate GPTQ on",
                found="none",
                next_step="name some: --korean FILE... --english FILE...",
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How often the vocabulary's new tokens occur."""

    num_new: int
    num_enough: int
    """Of them, those that occur as often as was asked for, or as often as in all texts together."""
    num_unseen: int
    """Those that occur nowhere in the texts."""
    min_occurrences: int

    def __str__(self) -> str:
        if not self.num_new:
            return "no new tokens"
        if not self.min_occurrences:
            return f"{self.num_new:,} new tokens, none of which was asked for"
        scarce = self.num_new - self.num_enough - self.num_unseen
        told = f"{self.num_enough:,} of {self.num_new:,} new tokens seen {self.min_occurrences} times or more"
        told += f", {scarce:,} as often as the texts have them" if scarce else ""
        return told + (f", {self.num_unseen:,} not in the texts" if self.num_unseen else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Rows to calibrate on, and what they hold."""

    rows: tuple[Row, ...]
    coverage: Coverage
    digests: dict[str, str]
    """SHA-256 of each file, by name, and of all rows."""

    @property
    def num_tokens(self) -> int:
        """Of all rows."""
        return sum(map(len, self.rows))

    def __str__(self) -> str:
        return f"{len(self.rows):,} rows, {self.num_tokens:,} tokens; {self.coverage}"

    def metrics(self) -> dict[str, float]:
        """For malmoi.json."""
        return {
            "calibration_rows": len(self.rows),
            "calibration_tokens": self.num_tokens,
            "calibration_new_tokens": self.coverage.num_new,
            "calibration_new_tokens_covered": self.coverage.num_enough,
            "calibration_new_tokens_unseen": self.coverage.num_unseen,
        }


@dataclass(slots=True)
class _Draw:
    """Rows drawn at random from all that pass by, up to a number of tokens."""

    num_tokens: int
    rows: list[tuple[float, int, Row]] = field(default_factory=list)
    """A heap of the negative of a row's lot, its number, and itself: the highest lot is on top."""
    size: int = 0

    def in_order(self) -> list[tuple[int, Row]]:
        """The rows and their numbers, the lowest lot first."""
        return [(number, row) for _, number, row in sorted(self.rows, reverse=True)]

    def offer(self, lot: float, number: int, row: Row) -> None:
        """Keeps the row if its lot is low enough."""
        heapq.heappush(self.rows, (-lot, number, row))
        self.size += len(row)
        while self.rows and self.size - len(self.rows[0][2]) >= self.num_tokens:
            self.size -= len(heapq.heappop(self.rows)[2])


def calibration_set(
    checkpoint: Checkpoint, source: CalibrationSource, sizes: Calibration, seed: int
) -> CalibrationSet:
    """Rows for the checkpoint, through its own tokenizer and template; the same for the same seed and files.

    Raises: CorpusError for files that cannot be read, or hold nothing long enough.
    """
    from transformers import AutoTokenizer

    from quant.token_kinds import num_old_of

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    share = (sizes.english_share if source.korean else 1.0) if source.english else 0.0
    num_old = num_old_of(checkpoint)
    lots = random.Random(seed)
    available: Counter[int] = Counter()
    kept: list[tuple[int, Row]] = []
    drawn: list[list[tuple[int, Row]]] = []
    number = 0
    for paths, num_tokens in (
        (source.korean, round((1 - share) * sizes.num_tokens)),
        (source.english, round(share * sizes.num_tokens)),
    ):
        draw = _Draw(num_tokens)
        for row in _rows(paths, tokenizer, sizes.row_tokens):
            number += 1
            draw.offer(lots.random(), number, row)
            new = [token for token in row if token >= num_old]
            if any(available[token] < sizes.min_occurrences for token in new):
                kept.append((number, row))
            available.update(new)
        drawn.append(draw.in_order())
    korean, english = drawn
    if not (korean or english):
        raise _nothing(source)
    half = _first(korean, sum(len(row) for _, row in korean) // 2)
    first = [*half, *english]
    rows = cover(first, _pieces(kept, first, sizes.piece_tokens), num_old, sizes.min_occurrences)
    left = sizes.num_tokens - sum(map(len, rows))
    rows += [row for _, row in _first(korean[len(half) :], left)]
    return CalibrationSet(
        rows=tuple(rows),
        coverage=_coverage(rows, available, checkpoint, num_old, sizes.min_occurrences),
        digests=_digests(source, rows),
    )


def _rows(paths: Sequence[str], tokenizer: "PreTrainedTokenizerBase", row_tokens: int) -> Iterator[Row]:
    """All of the files, in pieces of at most `row_tokens`."""
    from quant.passages import rendered, start_of

    for texts in _batched(tqdm(read_texts(paths), desc="tokenizing", unit=" texts", disable=None)):
        plain = [text if isinstance(text, str) else rendered(text, tokenizer) for text in texts]
        batch = tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(texts, batch, strict=True):
            whole = [*start_of(tokenizer), *ids] if isinstance(text, str) else ids
            for begin in range(0, len(whole), row_tokens):
                row = array("i", whole[begin : begin + row_tokens])
                if len(row) >= MIN_ROW_TOKENS:
                    yield row


def _batched(texts: Iterable[Text]) -> Iterator[list[Text]]:
    texts = iter(texts)
    while batch := list(islice(texts, TEXTS_AT_ONCE)):
        yield batch


def cover(
    drawn: Sequence[tuple[int, Row]], others: Iterable[tuple[int, Row]], num_old: int, least: int
) -> list[Row]:
    """The rows drawn, and of the others as many as it takes for every new token to occur `least` times.

    A row's gain only falls while others are added, so the best is found without counting all again (Minoux's
    lazy greedy algorithm).
    """
    seen: Counter[int] = Counter(token for _, row in drawn for token in row if token >= num_old)
    rows = [row for _, row in drawn]

    def gain(row: Row) -> int:
        counts = Counter(token for token in row if token >= num_old)
        return sum(min(count, max(0, least - seen[token])) for token, count in counts.items())

    heap = [(-gain(row), number, row) for number, row in others]
    heapq.heapify(heap)
    while heap:
        _, number, row = heapq.heappop(heap)
        found = gain(row)
        if not found:
            continue
        if heap and (-found, number) > heap[0][:2]:
            heapq.heappush(heap, (-found, number, row))
            continue
        rows.append(row)
        seen.update(token for token in row if token >= num_old)
    return rows


def _first(rows: Sequence[tuple[int, Row]], num_tokens: int) -> list[tuple[int, Row]]:
    """The first of them, of so many tokens together."""
    taken: list[tuple[int, Row]] = []
    for number, row in rows:
        if num_tokens <= 0:
            break
        taken.append((number, row))
        num_tokens -= len(row)
    return taken


def _pieces(
    rows: Iterable[tuple[int, Row]], without: Iterable[tuple[int, Row]], size: int
) -> Iterator[tuple[int, Row]]:
    """Rows cut short: what stands around a rare token is not worth a whole one. The last begins earlier."""
    drawn = {number for number, _ in without}
    for number, row in rows:
        if number not in drawn:
            for begin in range(0, len(row), size):
                begin = max(0, min(begin, len(row) - size))
                yield number, row[begin : begin + size]


def _coverage(
    rows: Sequence[Row], available: Counter[int], checkpoint: Checkpoint, num_old: int, least: int
) -> Coverage:
    seen = Counter(token for row in rows for token in row if token >= num_old)
    new = range(num_old, checkpoint.vocab_size)
    return Coverage(
        num_new=len(new),
        num_enough=sum(seen[token] >= least for token in new),
        num_unseen=sum(not available[token] for token in new),
        min_occurrences=least,
    )


def _digests(source: CalibrationSource, rows: Sequence[Row]) -> dict[str, str]:
    files = {name: file_digest(file) for name, file in source.files().items()}
    return files | {"rows": ids_digest([token for row in rows for token in row])}


def _nothing(source: CalibrationSource) -> CorpusError:
    return CorpusError(
        ", ".join((*source.korean, *source.english)),
        expected=f"texts of {MIN_ROW_TOKENS} tokens or more to calibrate on",
        found="none",
        next_step="name other files: --korean FILE... --english FILE...",
    )
