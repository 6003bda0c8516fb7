"""EEVE's loop as one would write it down: every round encodes every text again with a real tokenizer."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tokenizers import Tokenizer

from train.vocabulary.base import Base
from train.vocabulary.growing import grow


def naive_choice(
    texts: Sequence[str], base: Base, intermediate: Sequence[str], *, threshold: int, num_new: int
) -> tuple[list[str], list[int]]:
    """The chosen tokens in order of urgency, and their counts."""
    characters = Counter(character for text in texts for character in text if _is_hangul(character))
    known = set(base.vocabulary)
    candidates = [token for token in intermediate if token not in known and base.implies_script(token)]
    missing: list[str] = []
    for character in sorted(characters):
        token = base.token(character)
        if characters[character] >= threshold and token not in known and token not in candidates:
            parts = [token[:length] for length in range(2, len(token))] if base.is_bytes else []
            missing += [
                part
                for part in [*parts, token]
                if part not in known | {*candidates, *missing} and base.implies_script(part)
            ]
    universe = [*candidates, *missing]
    parts_of = _derivations(base, universe)
    frequent_syllables = {token for token in universe if characters[base.text(token) or ""] >= threshold}
    wanted = {token for token in parts_of if any(map(_is_hangul, base.text(token) or ""))}

    def closed(tokens: Iterable[str]) -> set[str]:
        chosen = set(tokens)
        return chosen | {part for token in chosen for part in parts_of[token]} & set(universe)

    def counts(tokens: set[str]) -> Counter[str]:
        ordered = [token for token in universe if token in tokens]
        tokenizer = Tokenizer.from_str(json.dumps(grow(base, ordered).state))
        found: Counter[str] = Counter()
        for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
            found.update(encoding.tokens)
        return found

    alive = closed(wanted - set(missing))
    while True:
        found = counts(alive)
        kept = {
            token
            for token in wanted & (alive | set(missing))
            if found[token] >= threshold or token in frequent_syllables
        }
        before, alive = alive, closed(kept)
        if alive == before:
            break
    weight = {token: found[token] for token in alive}
    for made in alive:
        for part in parts_of[made] & alive:
            weight[part] = max(weight[part], found[made])
    place = {token: number for number, token in enumerate(universe)}
    chosen = sorted(alive, key=lambda token: (-weight[token], len(token), place[token]))[:num_new]
    final = counts(set(chosen))
    ordered = sorted(chosen, key=place.__getitem__)
    return ordered, [final[token] for token in ordered]


def _derivations(base: Base, universe: Sequence[str]) -> dict[str, set[str]]:
    """For every token that its own text gives: what stood on the way. One pair at a time, in plain Python."""
    ranks = {pair: rank for rank, pair in reversed([*enumerate(grow(base, universe).merges)])}
    found = {}
    for token in universe:
        symbols, made = list(token), set(token)
        while True:
            pairs = [(ranks[pair], at) for at, pair in enumerate(pairwise(symbols)) if pair in ranks]
            if not pairs:
                break
            _, at = min(pairs)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            made.add(symbols[at])
        if symbols == [token]:
            found[token] = made
    return found


def _is_hangul(character: str) -> bool:
    return "가" <= character <= "힣" or "ㄱ" <= character <= "ㆎ"
