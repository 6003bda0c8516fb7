"""Which tokens to add: EEVE's loop, over the word table instead of the corpus.

Source: EEVE, arXiv:2402.14714, and its model card (methods: intermediate tokenizer of 40,000; count with the
grown one; drop what is rarer than 6,000 in 100 GB; add missing syllables; repeat until nothing changes).
"""

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from malmoi.errors import RecipeError
from train.vocabulary.base import Base, all_splits, has_script
from train.vocabulary.pretokens import Pretokens
from train.vocabulary.segmentation import (
    Bools,
    Derivations,
    Ints,
    Longs,
    Rules,
    Segmentation,
    Words,
    beginning,
    derive,
)

log = logging.getLogger(__name__)

ALIGNMENT: Final = 64
"""A vocabulary is a multiple of this, so that no row is added to fill one up."""
NUM_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every token that may be added, the most urgent to merge first; numbered from `num_base` on."""

    tokens: Sequence[str]
    universe: Mapping[str, int]
    """The base's tokens by id, then the candidates."""
    num_base: int
    rules: Rules
    derivations: Derivations
    wanted: Bools
    """(candidates,): worth a place for its own sake: it can be reached, and is a text that holds the script."""
    is_missing: Bools
    """(candidates,): a syllable, frequent enough, that neither base nor intermediate tokenizer has."""
    is_kept: Bools
    """(candidates,): named by a person, whatever its count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One turn of the loop."""

    num_tokens: int
    """Alive in it."""
    num_dropped: int
    num_added: int
    num_encoded: int
    """Words encoded for it; the first round encodes all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the loop came to."""

    tokens: list[str]
    """The most urgent to merge first: the order of their ids."""
    counts: list[int]
    """Occurrences of each in the corpus, encoded with all of them."""
    examples: list[list[str]]
    """The most frequent pre-tokens in which each is a token; none for one that is only a step to others."""
    rounds: list[Round]
    num_words: int


def choose_tokens(
    pretokens: Pretokens,
    base: Base,
    intermediate: Sequence[str],
    *,
    threshold: int,
    num_new: int | None,
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> Choice:
    """The tokens to add to the base.

    `threshold`: occurrences in the corpus below which a token is dropped. `num_new`: how many to choose, the
    most frequent ones; None for all that are left, down to a multiple of 64 in all. `keep`, `drop`: texts.

    Raises: RecipeError if fewer than `num_new` are left, or base and new ones are not a multiple of 64.
    """
    _check_total(base, num_new)
    candidates = find_candidates(pretokens, base, intermediate, threshold, set(keep), set(drop))
    loop = Loop(pretokens, base, candidates, threshold)
    rounds = loop.run()
    chosen = loop.most_frequent(num_new)
    rounds.append(loop.restrict(chosen))
    numbers = np.flatnonzero(chosen)
    first_words = loop.segmentation.first_words(NUM_EXAMPLES)[candidates.num_base :]
    return Choice(
        tokens=[candidates.tokens[number] for number in numbers],
        counts=loop.counts[numbers].tolist(),
        examples=[
            [pretokens.texts[word].as_py() for word in first_words[number].tolist() if word >= 0]
            for number in numbers
        ],
        rounds=rounds,
        num_words=len(pretokens.words.counts),
    )


def _check_total(base: Base, num_new: int | None) -> None:
    if num_new is None or (base.num_ids + num_new) % ALIGNMENT == 0:
        return
    nearest = num_new - (base.num_ids + num_new) % ALIGNMENT
    raise RecipeError(
        "--size",
        expected=f"a multiple of {ALIGNMENT} together with the base's {base.num_ids} tokens",
        found=f"{num_new}, {base.num_ids + num_new} in all",
        next_step=f"take {nearest} or {nearest + ALIGNMENT}",
    )


def find_candidates(
    pretokens: Pretokens,
    base: Base,
    intermediate: Sequence[str],
    threshold: int,
    keep: set[str],
    drop: set[str],
) -> Candidates:
    """The intermediate tokenizer's tokens that the base lacks, what `keep` names, and missing syllables."""
    universe = dict(base.vocabulary)
    num_base = base.num_ids

    def add(tokens: Iterable[str]) -> None:
        for token in tokens:
            universe.setdefault(token, num_base + len(universe) - len(base.vocabulary))

    add(token for token in intermediate if base.text(token) not in drop and base.implies_script(token))
    texts_kept = {base.token(_checked(text)) for text in keep} - base.vocabulary.keys()
    for token in sorted(texts_kept):
        add(_chain(base, token, universe))
    first_missing = len(universe)
    for code in np.flatnonzero(pretokens.syllables >= max(threshold, 1)).tolist():
        token = base.token(chr(code))
        if token not in universe and chr(code) not in drop:
            add(_chain(base, token, universe))
    ordered = list(universe)[len(base.vocabulary) :]
    missing = set(list(universe)[first_missing:])
    rules = rules_of(base, ordered, universe)
    spelled = _spelled(base, ordered)
    numbers = np.arange(num_base, num_base + len(ordered), dtype=np.int32)
    everything = np.ones(num_base + len(ordered), bool)
    derivations = derive(numbers, spelled, rules, base.spelling(universe), everything)
    for place, token in enumerate(ordered):
        if token in texts_kept and not derivations.is_reached[place]:
            raise _cannot_be_kept(base.text(token) or token, "one that other merges of the base forestall")
    is_text = [has_script(base.text(token) or "") for token in ordered]
    is_missing = np.array([token in missing for token in ordered], bool)
    is_kept = np.array([token in texts_kept for token in ordered], bool)
    wanted = np.array(is_text, bool) & derivations.is_reached
    return Candidates(ordered, universe, num_base, rules, derivations, wanted, is_missing, is_kept)


def _checked(text: str) -> str:
    """A text that a person wants kept, if it can be a token at all."""
    if any(character.isspace() for character in text.removeprefix(" ")):
        raise _cannot_be_kept(text, "white space inside it, where every text is cut")
    if not has_script(text):
        raise _cannot_be_kept(text, "none, so that English text would be encoded otherwise than before")
    return text


def _cannot_be_kept(text: str, found: str) -> RecipeError:
    return RecipeError(
        f"--keep: {text!r}", expected="a piece of Hangul", found=found, next_step="remove it from the file"
    )


def _chain(base: Base, token: str, known: Container[str]) -> list[str]:
    """The token, and before it each beginning of it that it needs to be merged from its codes."""
    beginnings = [token[:length] for length in range(1 if not base.is_bytes else 2, len(token) + 1)]
    single = [character for character in token if character not in known]
    return [part for part in [*single, *beginnings] if part not in known and base.implies_script(part)]


def rules_of(base: Base, tokens: Sequence[str], universe: Mapping[str, int]) -> Rules:
    """The grown tokenizer's merge rules, as numbers."""
    numbered = [
        (universe[left], universe[right], universe[left + right]) for left, right in grown_merges(base, tokens)
    ]
    return Rules.of(numbered, base.num_ids)


def grown_merges(base: Base, tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The merge rules of the base grown by `tokens`: the base's own, then every way to make each new token.

    A SentencePiece model has no rules but its pieces, so that a piece of the base, too, can be merged from new
    ones; those ways stand where the base's own for that piece end.
    """
    known = base.vocabulary | {token: base.num_ids + place for place, token in enumerate(tokens)}
    bridges: dict[str, list[tuple[str, str]]] = {}
    if not base.is_bytes:
        new, old = set(tokens), set(base.merges)
        spelled_in_script = [token for token in base.vocabulary if has_script(token) and len(token) > 1]
        for token in spelled_in_script:
            ways = [pair for pair in all_splits([token], known) if pair not in old and not new.isdisjoint(pair)]
            if ways:
                bridges[token] = ways
    last = {left + right: place for place, (left, right) in enumerate(base.merges)} if bridges else {}
    merges = []
    for place, (left, right) in enumerate(base.merges):
        merges.append((left, right))
        if bridges and last[left + right] == place:
            merges += bridges.pop(left + right, [])
    return [*merges, *(pair for ways in bridges.values() for pair in ways), *all_splits(tokens, known)]


def _spelled(base: Base, tokens: Sequence[str]) -> Words:
    codes = [base.codes(token) for token in tokens]
    starts = np.cumsum([0, *map(len, codes)], dtype=np.int64)
    flat = np.array([code for word in codes for code in word], np.uint16)
    return Words(flat, starts, np.ones(len(codes), np.int64))


def _whole(pretokens: Pretokens, base: Base, universe: Mapping[str, int]) -> Ints:
    """The token that each pre-token is as a whole, -1 for none."""
    numbers = {base.text(token): number for token, number in universe.items()}
    numbers.pop(None, None)
    places = pc.index_in(pretokens.texts, pa.array(list(numbers), pa.large_string())).fill_null(-1).to_numpy()
    found: Ints = np.append(np.fromiter(numbers.values(), np.int32), np.int32(-1))[places]
    return found


class Loop:
    """The rounds, and what they work on."""

    def __init__(self, pretokens: Pretokens, base: Base, candidates: Candidates, threshold: int) -> None:
        self.candidates = candidates
        self.threshold = threshold
        spelling = base.spelling(candidates.universe)
        beginnings = np.zeros(candidates.num_base + len(candidates.tokens), np.int32)
        codes = [base.codes(token) for token in candidates.tokens]
        beginnings[candidates.num_base :] = [beginning(word, is_bytes=base.is_bytes) for word in codes]
        syllables = [base.text(token) or "" for token in candidates.tokens]
        self.is_frequent_syllable = np.array(
            [len(text) == 1 and pretokens.syllables[ord(text)] >= threshold for text in syllables], bool
        )
        self.alive = self.closed(candidates.wanted & ~candidates.is_missing)
        words = pretokens.words
        if base.takes_whole_words:
            words = words._replace(whole=_whole(pretokens, base, candidates.universe))
        self.segmentation = Segmentation(
            words, candidates.rules, spelling, self._with_base(self.alive), beginnings
        )

    @property
    def counts(self) -> Longs:
        """(candidates,): occurrences in the corpus."""
        return self.segmentation.token_counts[self.candidates.num_base :]

    def run(self) -> list[Round]:
        """Counts, drops and adds until nothing is dropped or added."""
        rounds = []
        num_encoded = len(self.segmentation.words.counts)
        while True:
            before = self.alive
            self.alive = self.closed(self._frequent())
            rounds.append(self._round(before, num_encoded))
            if not rounds[-1].num_dropped and not rounds[-1].num_added:
                return rounds
            num_encoded = self.segmentation.update(self._with_base(self.alive))

    def restrict(self, chosen: Bools) -> Round:
        """Leaves only `chosen` alive."""
        before, self.alive = self.alive, chosen
        return self._round(before, self.segmentation.update(self._with_base(chosen)))

    def most_frequent(self, num_new: int | None) -> Bools:
        """A mask of the most frequent tokens, closed: a token counts as often as any that is made of it."""
        candidates, num_alive = self.candidates, int(self.alive.sum())
        if num_new is None:
            num_new = max(0, num_alive - (candidates.num_base + num_alive) % ALIGNMENT)
        if num_new > num_alive:
            raise RecipeError(
                "corpus",
                expected=f"{num_new} tokens that occur at least {self.threshold} times",
                found=str(num_alive),
                next_step="lower --threshold or --size, or give more text",
            )
        weight = np.where(candidates.is_kept & self.alive, np.iinfo(np.int64).max, self.counts)
        starts, parts = candidates.derivations.starts, candidates.derivations.parts - candidates.num_base
        length = np.array([len(token) for token in candidates.tokens])
        for token in np.argsort(-length, kind="stable"):  # the longest first: parts are shorter
            if self.alive[token]:
                mine = parts[starts[token] : starts[token + 1]]
                mine = mine[mine >= 0]
                weight[mine] = np.maximum(weight[mine], weight[token])
        order = np.lexsort((length, -weight, ~self.alive))
        chosen = np.zeros(len(weight), bool)
        chosen[order[:num_new]] = True
        return chosen

    def _frequent(self) -> Bools:
        """What is worth a place of its own: frequent enough, a frequent syllable, or named by a person."""
        candidates = self.candidates
        wanted = candidates.wanted & (self.alive | candidates.is_missing)
        worth: Bools = (self.counts >= self.threshold) | self.is_frequent_syllable | candidates.is_kept
        return wanted & worth

    def closed(self, tokens: Bools) -> Bools:
        """`tokens` and all that they are merged from."""
        derivations = self.candidates.derivations
        used = np.repeat(tokens, np.diff(derivations.starts))
        parts = derivations.parts[used] - self.candidates.num_base
        closed = tokens.copy()
        closed[parts[parts >= 0]] = True
        return closed

    def _with_base(self, tokens: Bools) -> Bools:
        return np.concatenate([np.ones(self.candidates.num_base, bool), tokens])

    def _round(self, before: Bools, num_encoded: int) -> Round:
        found = Round(
            num_tokens=int(before.sum()),
            num_dropped=int((before & ~self.alive).sum()),
            num_added=int((self.alive & ~before).sum()),
            num_encoded=num_encoded,
        )
        log.info("%s", found)
        return found
