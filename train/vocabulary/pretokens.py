"""From the word table to what a tokenizer merges within: the distinct pre-tokens that hold the new script.

Merging never crosses a pre-token's edge. In the SentencePiece family, which has no such cuts of its own, a run
of Hangul with the spaces before it is one, because no token of the base joins Hangul to anything but a space
before it (`check_script` refuses a base that does).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from malmoi.errors import RecipeError
from train.corpus.words import SCHEMA, add_up, read_words, text_buffers
from train.vocabulary.base import (
    FIRST_LETTER,
    FIRST_SYLLABLE,
    LAST_LETTER,
    LAST_SYLLABLE,
    SPACE,
    Base,
    is_hangul,
)
from train.vocabulary.segmentation import Codes, Longs, Words

HANGUL: Final = "[\\x{3131}-\\x{318E}\\x{AC00}-\\x{D7A3}]"
"""Syllables and the letters that stand alone (ㅋㅋ), for arrow's regular expressions (RE2)."""
SPACE_CODE: Final = ord(SPACE)
NUM_SYLLABLE_CODES: Final = 1 << 16
WORDS_AT_ONCE: Final = 1 << 14
"""Encoded together: an encoding is two kilobytes."""
Bytes = npt.NDArray[np.uint8]
Cut = Callable[[pa.RecordBatch], pa.Table]
"""From a batch of the word table, the pre-tokens in its words, as a table of the same columns."""


@dataclass(frozen=True, slots=True)
class Pretokens:
    """The pre-tokens that hold Hangul, the most frequent first, and how often each single syllable occurs."""

    texts: pa.LargeStringArray
    """With spaces as they stand in text."""
    words: Words
    syllables: Longs
    """(65,536,): occurrences of each Hangul code point."""


def count_pretokens(table: Path, base: Base) -> Pretokens:
    """The pre-tokens of a word table as the base's tokenizer cuts them.

    Raises: RecipeError if the base has tokens that join Hangul to something else.
    """
    cut = _cut_bytes(base) if base.is_bytes else _cut_pieces(base)
    merged = add_up([cut(batch) for batch in read_words(table)])
    counts = merged["count"].to_numpy()
    order = np.argsort(-counts, kind="stable")  # of equal counts, as the table has them
    texts = pc.take(merged["word"], pa.array(order)).combine_chunks()
    counts = counts[order]
    starts, data = text_buffers(texts)
    syllables = np.zeros(NUM_SYLLABLE_CODES, np.int64)
    _count_syllables(starts, data, counts, syllables)
    if base.is_bytes:
        words = Words(data.astype(np.uint16), starts.copy(), counts)
    else:
        codes, code_starts = np.empty(len(data), np.uint16), np.zeros(len(texts) + 1, np.int64)
        num_codes = _decode(starts, data, codes, code_starts)
        words = Words(codes[:num_codes].copy(), code_starts, counts)
    return Pretokens(texts, words, syllables)


def _cut_pieces(base: Base) -> Cut:
    check_script(base)
    prefix = _prefix(base)

    def cut(batch: pa.RecordBatch) -> pa.Table:
        starts, data = text_buffers(batch["word"])
        counts, firsts = batch["count"].to_numpy(), batch["first"].to_numpy()
        capacity = 2 * len(data) + len(starts)
        out, out_starts = np.empty(2 * capacity, np.uint8), np.empty(2 * len(data) + 1, np.int64)
        out_counts = np.empty(2 * len(data), np.int64)
        num = _cut_hangul(starts, data, counts, firsts, prefix, out, out_starts, out_counts)
        buffers = [None, pa.py_buffer(out_starts[: num + 1]), pa.py_buffer(out[: out_starts[num]])]
        units = pa.Array.from_buffers(pa.large_string(), num, buffers)
        return _counted(units, pa.array(out_counts[:num]))

    return cut


def _counted(pretokens: pa.LargeStringArray, counts: pa.Int64Array) -> pa.Table:
    """In the word table's form, so that it can be added up by the same function."""
    return pa.table([pretokens, counts, pa.array(np.zeros(len(counts), np.int64))], schema=SCHEMA)


def _prefix(base: Base) -> int:
    """How a text begins: 0 as it is, 1 with a space unless there is one, 2 with one more space than it has."""

    def spaces(text: str) -> int:
        if base.tokenizer.normalizer is not None:
            text = base.tokenizer.normalizer.normalize_str(text)
        if base.tokenizer.pre_tokenizer is not None:
            text = "".join(piece for piece, _ in base.tokenizer.pre_tokenizer.pre_tokenize_str(text))
        return text.index("가")

    return spaces("가") + spaces(" 가") - 1


def check_script(base: Base) -> None:
    """Raises RecipeError if a token of a SentencePiece base joins Hangul to anything but a space before it."""
    for token in base.vocabulary:
        hangul = [is_hangul(character) for character in token.lstrip(SPACE)]
        if any(hangul) and not all(hangul):
            raise RecipeError(
                "base tokenizer",
                expected="tokens of Hangul alone, or of none",
                found=repr(token),
                next_step="this vocabulary cannot be grown",
            )


def _cut_bytes(base: Base) -> Cut:
    """Cuts by the base's own pre-tokenizer, many words at a time: of every pre-token the span is told."""
    spans = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    if base.tokenizer.normalizer is not None:
        spans.normalizer = base.tokenizer.normalizer
    spans.pre_tokenizer = base.tokenizer.pre_tokenizer
    has_prefix = spans.pre_tokenizer.pre_tokenize_str("가")[0][0].startswith(base.token(" "))

    def cut(batch: pa.RecordBatch) -> pa.Table:
        batch = batch.filter(pc.match_substring_regex(batch["word"], HANGUL))
        words = batch["word"].to_pylist()
        found, numbers = [], []
        parts = [words[first : first + WORDS_AT_ONCE] for first in range(0, len(words), WORDS_AT_ONCE)]
        encodings = chain.from_iterable(map(spans.encode_batch, parts))
        for number, (word, encoding) in enumerate(zip(words, encodings, strict=True)):
            for start, end in encoding.offsets:
                prefix = " " if has_prefix and start == 0 and not word.startswith(" ") else ""
                found.append(prefix + word[start:end])
                numbers.append(number)
        table = _counted(pa.array(found, pa.large_string()), batch["count"].take(pa.array(numbers, pa.int64())))
        return table.filter(pc.match_substring_regex(table["word"], HANGUL))

    return cut


@numba.njit(cache=True)
def _code_at(data: Bytes, place: int, end: int) -> int:
    """The code point of a three-byte character, -1 for any other."""
    if place + 2 < end and data[place] >> 4 == 0xE:
        return int((data[place] & 0xF) << 12 | (data[place + 1] & 0x3F) << 6 | (data[place + 2] & 0x3F))
    return -1


@numba.njit(cache=True)
def _is_hangul(code: int) -> bool:
    return FIRST_SYLLABLE <= code <= LAST_SYLLABLE or FIRST_LETTER <= code <= LAST_LETTER


@numba.njit(cache=True)
def _cut_hangul(
    starts: Longs,
    data: Bytes,
    counts: Longs,
    firsts: Longs,
    prefix: int,
    out: Bytes,
    out_starts: Longs,
    out_counts: Longs,
) -> int:
    """Writes each run of Hangul with the spaces before it; returns their number.

    A word that begins with a space, and both begins texts and does not, is written twice where that matters.
    """
    num, size = 0, 0
    out_starts[0] = 0
    for word in range(len(starts) - 1):
        place, end = starts[word], starts[word + 1]
        has_space = data[place] == 0x20
        num_begun = firsts[word] if (has_space and prefix == 2) or (not has_space and prefix) else 0
        if num_begun:
            num, size = _cut_word(data, place, end, 1, num_begun, num, size, out, out_starts, out_counts)
        if counts[word] > num_begun:
            rest = counts[word] - num_begun
            num, size = _cut_word(data, place, end, 0, rest, num, size, out, out_starts, out_counts)
    return num


@numba.njit(cache=True)
def _cut_word(
    data: Bytes,
    place: int,
    end: int,
    num_spaces: int,
    count: int,
    num: int,
    size: int,
    out: Bytes,
    out_starts: Longs,
    out_counts: Longs,
) -> tuple[int, int]:
    """One word, with `num_spaces` put before it; returns how many are written now, and their bytes."""
    while place < end:
        code = _code_at(data, place, end)
        if data[place] == 0x20:
            num_spaces += 1
            place += 1
        elif code == SPACE_CODE:
            num_spaces += 1
            place += 3
        elif not _is_hangul(code):
            num_spaces = 0
            place += 1
        else:
            for _ in range(num_spaces):
                out[size] = 0x20
                size += 1
            num_spaces = 0
            while _is_hangul(code):
                out[size : size + 3] = data[place : place + 3]
                size += 3
                place += 3
                code = _code_at(data, place, end)
            out_counts[num] = count
            num += 1
            out_starts[num] = size
    return num, size


@numba.njit(cache=True)
def _count_syllables(starts: Longs, data: Bytes, counts: Longs, syllables: Longs) -> None:
    for word in range(len(starts) - 1):
        for place in range(starts[word], starts[word + 1]):
            code = _code_at(data, place, starts[word + 1])
            if _is_hangul(code):
                syllables[code] += counts[word]


@numba.njit(cache=True)
def _decode(starts: Longs, data: Bytes, codes: Codes, code_starts: Longs) -> int:
    """Writes the code points of pre-tokens of Hangul and spaces; returns their number."""
    num = 0
    for word in range(len(starts) - 1):
        place = starts[word]
        while place < starts[word + 1]:
            if data[place] == 0x20:
                codes[num] = SPACE_CODE
                place += 1
            else:
                codes[num] = _code_at(data, place, starts[word + 1])
                place += 3
            num += 1
        code_starts[word + 1] = num
    return num
