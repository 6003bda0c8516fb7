"""Byte-pair encoding of a whole word table at once, and again of those words alone that a change touches.

The same tokens as the `tokenizers` library gives (tests compare them): of all adjacent pairs that a rule
merges, the one of lowest rank first, the leftmost of equal ones, until none is left.
Source: Sennrich et al., arXiv:1508.07909; ranks and ties as in huggingface/tokenizers, models/bpe/word.rs.

A token is *alive* while it is in the vocabulary. Tokens die and come alive between rounds; the rules stay, and
one whose result is dead is passed over.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint16]

EMPTY: Final = np.int64(-1)
NO_RULE: Final = np.int32(2**31 - 1)
MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing (Knuth, TAOCP 3, 6.4)."""
NUM_CODES: Final = 1 << 16
"""What a word is spelled in: code points of the Basic Multilingual Plane, or bytes."""
MAX_BYTES: Final = 3
"""Of a character of the Basic Multilingual Plane in UTF-8."""


class Rules(NamedTuple):
    """Merge rules; a rule's rank is its place. Shapes: `results` (rules,); the hash table (slots,)."""

    results: Ints
    """The token that left and right become."""
    is_bridge: Bools
    """From a new part to a token of the base: a word merged by one may change though no token of it died."""
    keys: Longs
    ranks: Ints

    @classmethod
    def of(cls, merges: Sequence[tuple[int, int, int]], num_base: int) -> "Rules":
        """The rules (left, right, result), the most urgent first."""
        columns = np.array(merges, np.int32).reshape(-1, 3)
        left, right, results = columns[:, 0], columns[:, 1], np.ascontiguousarray(columns[:, 2])
        slots = 1 << max(4, int(4 * len(columns)).bit_length() - 1)
        keys, ranks = np.full(slots, EMPTY), np.full(slots, NO_RULE)
        _fill(left, right, keys, ranks)
        is_bridge = (results < num_base) & ((left >= num_base) | (right >= num_base))
        return cls(results, is_bridge, keys, ranks)


class Spelling(NamedTuple):
    """How a word's codes become the tokens that merging begins with."""

    tokens: Ints
    """(NUM_CODES,): the token of a code, -1 where there is none."""
    byte_tokens: Ints
    """(256,): the tokens of UTF-8 bytes, for codes without a living token."""
    is_bytes: bool
    """Codes are UTF-8 bytes, not characters."""


class Words(NamedTuple):
    """Distinct words with their counts. Shapes: codes (all codes,), starts (words + 1,), counts (words,)."""

    codes: Codes
    starts: Longs
    counts: Longs
    whole: Ints = np.empty(0, np.int32)
    """(words,): the token that a word is as a whole, -1 for none; (0,) if the tokenizer does not ask."""


class Encoded(NamedTuple):
    """The tokens of every word: `lengths[word]` of them from `stride * words.starts[word]` on."""

    tokens: Ints
    lengths: Ints
    is_bridged: Bools
    """Whether a word was merged over a bridge."""
    stride: int


class Segmentation:
    """The tokens of every word; `update` keeps them right when tokens die or come alive.

    `token_counts` (tokens,): how often each occurs, by the words' counts.
    """

    def __init__(self, words: Words, rules: Rules, spelling: Spelling, alive: Bools, beginnings: Ints) -> None:
        self.words = words
        self._rules = rules
        self._spelling = spelling
        self.alive = alive.copy()
        self._beginnings = beginnings
        """(tokens,): what each token begins with, as `beginning` has it."""
        stride = 1 if spelling.is_bytes else MAX_BYTES
        self._encoded = Encoded(
            np.empty(stride * len(words.codes), np.int32),
            np.zeros(len(words.counts), np.int32),
            np.zeros(len(words.counts), bool),
            stride,
        )
        self.token_counts = np.zeros(len(alive), np.int64)
        self.num_encoded = 0
        """Words encoded so far, repeated ones included."""
        self._encode(np.arange(len(words.counts)))

    def update(self, alive: Bools) -> int:
        """Makes exactly the tokens of `alive` living ones; returns the number of words encoded again."""
        born = np.zeros(NUM_CODES, bool)
        born[self._beginnings[alive & ~self.alive]] = True
        self.alive = alive.copy()
        touched = self._encoded.is_bridged.copy()
        _in_threads(
            len(touched), _touch, self.words, self._encoded, self.alive, born, self._spelling.is_bytes, touched
        )
        which = np.flatnonzero(touched)
        _add_counts(which, self.words, self._encoded, -1, self.token_counts)
        self._encode(which)
        return len(which)

    def tokens_of(self, word: int) -> Ints:
        """The tokens of a word, by its number."""
        start = self._encoded.stride * self.words.starts[word]
        return self._encoded.tokens[start : start + self._encoded.lengths[word]]

    def first_words(self, how_many: int) -> Ints:
        """(tokens, how_many): the numbers of the first words that hold each token, -1 where there are fewer."""
        found = np.full((len(self.alive), how_many), -1, np.int32)
        _first_words(self.words, self._encoded, found)
        return found

    def _encode(self, which: Longs) -> None:
        _in_threads(
            len(which), _encode_words, which, self.words, self._rules, self._spelling, self.alive, self._encoded
        )
        self.num_encoded += len(which)
        _add_counts(which, self.words, self._encoded, 1, self.token_counts)


@dataclass(frozen=True, slots=True)
class Derivations:
    """How each of some spelled tokens comes about. Shapes: is_reached (tokens,), starts (tokens + 1,)."""

    is_reached: Bools
    """Whether encoding the token's own text gives that one token: if not, no text does."""
    parts: Ints
    """Of all tokens, end to end: what stood on the way, first symbols and results, itself included."""
    starts: Longs


def derive(tokens: Ints, spelled: Words, rules: Rules, spelling: Spelling, alive: Bools) -> Derivations:
    """The derivation of every token of `tokens`, spelled as the words of `spelled`.

    It is the same in every word in which the token occurs, for a pair across the token's edge that was merged
    earlier would have prevented it; and it stays the same while its parts live, whatever else dies.
    """
    parts = np.empty(2 * MAX_BYTES * len(spelled.codes), np.int32)
    starts = np.zeros(len(tokens) + 1, np.int64)
    reached = np.zeros(len(tokens), bool)
    _derive(tokens, spelled, rules, spelling, alive, parts, starts, reached)
    return Derivations(reached, parts[: starts[-1]], starts)


def beginning(codes: Sequence[int], *, is_bytes: bool) -> int:
    """What a word must contain to contain the token: its first character, or its first two bytes."""
    return codes[0] << 8 | codes[1] if is_bytes and len(codes) > 1 else codes[0]


def _in_threads(num: int, function: Callable[..., None], *arguments: object) -> None:
    """function(begin, end, ...) for parts of range(num), one a core.

    Not numba's own threads: those that wait for work go on asking for it, and take a fifth of all time from
    whatever the process does next.
    """
    bounds = np.linspace(0, num, (os.cpu_count() or 1) + 1).astype(int).tolist()
    with ThreadPoolExecutor() as pool:
        parts = [pool.submit(function, begin, end, *arguments) for begin, end in pairwise(bounds)]
        for part in parts:
            part.result()


@numba.njit(cache=True)
def _slot(left: int, right: int, num_slots: int) -> int:
    key = np.uint64(left) << np.uint64(32) | np.uint64(right)
    return int((key * MULTIPLIER) >> np.uint64(20)) & (num_slots - 1)


@numba.njit(cache=True)
def _fill(left: Ints, right: Ints, keys: Longs, ranks: Ints) -> None:
    for rank in range(len(left)):
        key = np.int64(left[rank]) << 32 | np.int64(right[rank])
        slot = _slot(left[rank], right[rank], len(keys))
        while keys[slot] != EMPTY and keys[slot] != key:
            slot = (slot + 1) & (len(keys) - 1)
        if keys[slot] == EMPTY:  # of two rules for one pair the first holds
            keys[slot] = key
            ranks[slot] = rank


@numba.njit(cache=True)
def _rank(left: int, right: int, rules: Rules, alive: Bools) -> int:
    """The rank of the rule that merges the pair now, NO_RULE if none does."""
    key = np.int64(left) << 32 | np.int64(right)
    slot = _slot(left, right, len(rules.keys))
    while rules.keys[slot] != EMPTY:
        if rules.keys[slot] == key:
            rank = rules.ranks[slot]
            return int(rank) if alive[rules.results[rank]] else int(NO_RULE)
        slot = (slot + 1) & (len(rules.keys) - 1)
    return int(NO_RULE)


@numba.njit(cache=True)
def _spell(codes: Codes, spelling: Spelling, alive: Bools, symbols: Ints) -> int:
    """Writes the tokens that merging begins with; returns their number."""
    num = 0
    byte_tokens = spelling.byte_tokens
    for code in codes:
        token = spelling.tokens[code]
        if token >= 0 and alive[token]:
            symbols[num] = token
            num += 1
        elif code < 0x80:
            symbols[num] = byte_tokens[code]
            num += 1
        elif code < 0x800:
            symbols[num] = byte_tokens[0xC0 | code >> 6]
            symbols[num + 1] = byte_tokens[0x80 | code & 0x3F]
            num += 2
        else:
            symbols[num] = byte_tokens[0xE0 | code >> 12]
            symbols[num + 1] = byte_tokens[0x80 | (code >> 6) & 0x3F]
            symbols[num + 2] = byte_tokens[0x80 | code & 0x3F]
            num += 3
    return num


@numba.njit(cache=True)
def _merge(
    symbols: Ints, waiting: Ints, num: int, rules: Rules, alive: Bools, made: Ints, num_made: int
) -> tuple[int, bool, int]:
    """Merges in place; returns how many symbols are left, whether over a bridge, and how many were `made`.

    `waiting`: scratch for the rank of each symbol's pair with its right neighbour.
    """
    bridged = False
    for place in range(num - 1):
        waiting[place] = _rank(symbols[place], symbols[place + 1], rules, alive)
    while num > 1:
        best, where = NO_RULE, -1
        for place in range(num - 1):
            if waiting[place] < best:
                best, where = waiting[place], place
        if where < 0:
            break
        symbols[where] = rules.results[best]
        bridged = bridged or rules.is_bridge[best]
        if num_made < len(made):
            made[num_made] = rules.results[best]
            num_made += 1
        num -= 1
        for place in range(where + 1, num):
            symbols[place] = symbols[place + 1]
            waiting[place - 1] = waiting[place]
        if where > 0:
            waiting[where - 1] = _rank(symbols[where - 1], symbols[where], rules, alive)
        if where < num - 1:
            waiting[where] = _rank(symbols[where], symbols[where + 1], rules, alive)
    return num, bridged, num_made


@numba.njit(cache=True)
def _derive(
    tokens: Ints,
    spelled: Words,
    rules: Rules,
    spelling: Spelling,
    alive: Bools,
    parts: Ints,
    starts: Longs,
    reached: Bools,
) -> None:
    for number in range(len(tokens)):
        codes = spelled.codes[spelled.starts[number] : spelled.starts[number + 1]]
        symbols = np.empty(MAX_BYTES * len(codes), np.int32)
        num = _spell(codes, spelling, alive, symbols)
        made = parts[starts[number] :]
        made[:num] = symbols[:num]
        length, _, num_made = _merge(symbols, np.empty(num, np.int32), num, rules, alive, made, num)
        reached[number] = length == 1 and symbols[0] == tokens[number]
        starts[number + 1] = starts[number] + num_made


@numba.njit(cache=True, nogil=True)
def _encode_words(
    begin: int,
    end: int,
    which: Longs,
    words: Words,
    rules: Rules,
    spelling: Spelling,
    alive: Bools,
    encoded: Encoded,
) -> None:
    """Of `which`, those from `begin` to `end`."""
    has_whole = len(words.whole) > 0
    none_made = np.empty(0, np.int32)
    waiting = np.empty(256, np.int32)
    for word in which[begin:end]:
        first, last = words.starts[word], words.starts[word + 1]
        if has_whole and words.whole[word] >= 0 and alive[words.whole[word]]:
            encoded.tokens[encoded.stride * first] = words.whole[word]
            encoded.lengths[word] = 1
            encoded.is_bridged[word] = False
            continue
        symbols = encoded.tokens[encoded.stride * first : encoded.stride * last]
        num = _spell(words.codes[first:last], spelling, alive, symbols)
        if num > len(waiting):
            waiting = np.empty(2 * num, np.int32)
        length, bridged, _ = _merge(symbols, waiting, num, rules, alive, none_made, 0)
        encoded.lengths[word] = length
        encoded.is_bridged[word] = bridged


@numba.njit(cache=True)
def _add_counts(which: Longs, words: Words, encoded: Encoded, sign: int, totals: Longs) -> None:
    for word in which:
        first = encoded.stride * words.starts[word]
        for place in range(first, first + encoded.lengths[word]):
            totals[encoded.tokens[place]] += sign * words.counts[word]


@numba.njit(cache=True, nogil=True)
def _touch(
    begin: int,
    end: int,
    words: Words,
    encoded: Encoded,
    alive: Bools,
    born: Bools,
    is_bytes: bool,
    touched: Bools,
) -> None:
    """Marks words, from `begin` to `end`, that hold a token that died or what one that came alive begins with.

    That, and having been merged over a bridge, is enough: a living token's own parts are alive, so a word none
    of whose tokens died was merged by living rules alone, and would be merged so again.
    """
    any_born = born.any()
    for word in range(begin, end):
        first = encoded.stride * words.starts[word]
        for place in range(first, first + encoded.lengths[word]):
            if not alive[encoded.tokens[place]]:
                touched[word] = True
        if any_born:
            for place in range(words.starts[word], words.starts[word + 1] - is_bytes):
                key = words.codes[place]
                if born[key << 8 | words.codes[place + 1] if is_bytes else key]:
                    touched[word] = True


@numba.njit(cache=True)
def _first_words(words: Words, encoded: Encoded, found: Ints) -> None:
    for word in range(len(encoded.lengths)):
        first = encoded.stride * words.starts[word]
        for place in range(first, first + encoded.lengths[word]):
            row = found[encoded.tokens[place]]
            for column in range(len(row)):
                if row[column] == word:
                    break
                if row[column] < 0:
                    row[column] = word
                    break
