"""What a grown tokenizer promises, checked on real words and texts before anything is kept."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

from tokenizers.decoders import DecodeStream

from malmoi.errors import CheckpointError
from train.vocabulary.base import Base
from train.vocabulary.choosing import Choice

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
NFC: Final = "NFC"
LINE_END: Final = "\n"
"""Behind it a pre-token is encoded as it is inside a text."""
TEXTS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantee:
    """A promise and what became of it."""

    name: str
    num_checked: int
    failure: str | None = None
    """The first case in which it does not hold; None where it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the promises are checked on."""

    words: Sequence[str]
    """Pre-tokens with the new script."""
    texts: Sequence[str]
    """Whole texts of any script."""
    foreign: Sequence[str]
    """Texts and words without the new script."""


def check(base: Base, grown: Base, choice: Choice, evidence: Evidence) -> list[Guarantee]:
    """Every guarantee, checked in full.

    Raises: CheckpointError naming the first that does not hold.
    """
    checks: list[tuple[str, Callable[[], Iterator[str | None]]]] = [
        ("every id of the base keeps its token", partial(_ids, base, grown, choice)),
        ("text without the new script keeps its ids", partial(_foreign, base, grown, evidence.foreign)),
        ("decoding gives the text back", partial(_round_trip, base, grown, evidence)),
        ("every new token is made by a word of the corpus", partial(_produced, base, grown, choice)),
        ("streamed decoding gives the text and no U+FFFD", partial(_streamed, base, grown, evidence)),
        ("special tokens stay single tokens", partial(_special, base, grown)),
    ]
    if grown.piece_model is not None:
        checks.append(("fast tokenizer and SentencePiece model agree", partial(_pieces, base, grown, evidence)))
    found = []
    for name, cases in checks:
        num, failure = 0, None
        for failure in cases():
            num += 1
            if failure is not None:
                break
        found.append(Guarantee(name=name, num_checked=num, failure=failure))
        if failure is not None:
            raise CheckpointError(
                "grown tokenizer",
                expected=f"{name} ({num} cases checked)",
                found=failure,
                next_step="nothing was written; --drop the token, and report this base",
            )
    return found


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = list(texts)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        yield texts[start : start + TEXTS_AT_ONCE]


def _encoded(tokenizer: Base, texts: list[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _ids(base: Base, grown: Base, choice: Choice) -> Iterator[str | None]:
    for token, number in base.vocabulary.items():
        found = grown.tokenizer.id_to_token(number)
        yield None if found == token else f"id {number} was {token!r} and is {found!r}"
    for place, token in enumerate(choice.tokens):
        found = grown.tokenizer.id_to_token(base.num_ids + place)
        yield None if found == token else f"id {base.num_ids + place} is {found!r}, not {token!r}"


def _foreign(base: Base, grown: Base, texts: Sequence[str]) -> Iterator[str | None]:
    for batch in _batches(texts):
        for text, before, after in zip(batch, _encoded(base, batch), _encoded(grown, batch), strict=True):
            yield None if before == after else f"{text[:80]!r}: {before[:20]} became {after[:20]}"


def _round_trip(base: Base, grown: Base, evidence: Evidence) -> Iterator[str | None]:
    for batch in _batches([*evidence.texts, *evidence.words, *evidence.foreign]):
        decoded = grown.tokenizer.decode_batch(_encoded(grown, batch), skip_special_tokens=False)
        for text, back in zip(batch, decoded, strict=True):
            is_valid = unicodedata.is_normalized(NFC, text)
            holds = back == text or not is_valid or back == _back(base, text)
            yield None if holds else f"{text[:80]!r} came back as {back[:80]!r}"


def _back(base: Base, text: str) -> str:
    """What the base makes of a text: some add spaces about a literal <s>, which is no fault of the growth."""
    ids = base.tokenizer.encode(text, add_special_tokens=False).ids
    return str(base.tokenizer.decode(ids, skip_special_tokens=False))


def _produced(base: Base, grown: Base, choice: Choice) -> Iterator[str | None]:
    """An example word holds the token; a token without one is a step on the way to another that has."""
    by_token = dict(zip(choice.tokens, choice.examples, strict=True))
    steps = _steps(grown, [token for token, words in by_token.items() if words])
    for place, (token, words) in enumerate(by_token.items()):
        number = base.num_ids + place
        if not words:
            yield None if token in steps else f"{token!r} is made by no word and is a step to no token"
        else:
            found = [number in ids for ids in _encoded(grown, [f"{LINE_END}{word}" for word in words])]
            yield None if any(found) else f"{token!r} is not in {words[0]!r}"


def _steps(grown: Base, tokens: Iterable[str]) -> set[str]:
    """Every token that stands on the way to one of `tokens`."""
    ranks = {pair: place for place, pair in enumerate(grown.merges)}
    steps: set[str] = set()
    for token in tokens:
        symbols = list(token)
        while len(symbols) > 1:
            steps.update(symbols)
            pairs = [(ranks.get(pair), place) for place, pair in enumerate(pairwise(symbols))]
            living = [(rank, place) for rank, place in pairs if rank is not None]
            if not living:
                break
            _, place = min(living)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
    return steps


def _streamed(base: Base, grown: Base, evidence: Evidence) -> Iterator[str | None]:
    for batch in _batches(evidence.texts):
        for text, ids in zip(batch, _encoded(grown, batch), strict=True):
            stream = DecodeStream(skip_special_tokens=False)
            pieces = [stream.step(grown.tokenizer, number) or "" for number in ids]
            spoilt = any(REPLACEMENT in piece for piece in pieces) and REPLACEMENT not in text
            whole = "".join(pieces)
            holds = not spoilt and (whole == text or whole == _back(base, text))
            yield None if holds else f"{text[:80]!r} was streamed as {whole[:80]!r}"


def _special(base: Base, grown: Base) -> Iterator[str | None]:
    for entry in base.state.get("added_tokens", ()):
        ids = grown.tokenizer.encode(entry["content"], add_special_tokens=False).ids
        before = base.tokenizer.encode(entry["content"], add_special_tokens=False).ids
        yield None if ids == before else f"{entry['content']!r}: {before} became {ids}"


def _pieces(base: Base, grown: Base, evidence: Evidence) -> Iterator[str | None]:
    """Where the base's own two agree, which on a few texts (that hold a literal ▁, say) they do not."""
    from sentencepiece import SentencePieceProcessor

    before, after = (SentencePieceProcessor(model_proto=tokenizer.piece_model) for tokenizer in (base, grown))
    for batch in _batches([*evidence.texts, *evidence.words, *evidence.foreign]):
        for text, fast, slow in zip(batch, _encoded(grown, batch), after.encode(batch), strict=True):
            if fast != slow and base.tokenizer.encode(text, add_special_tokens=False).ids == before.encode(
                text
            ):
                yield f"{text[:80]!r}: {_difference(grown, fast, slow)}"
            yield None


def _difference(grown: Base, fast: list[int], slow: list[int]) -> str:
    place = next(
        (place for place, (one, other) in enumerate(zip(fast, slow, strict=False)) if one != other),
        min(len(fast), len(slow)),
    )
    shown = [
        " ".join(repr(grown.tokenizer.id_to_token(number)) for number in ids[place : place + 4])
        for ids in (fast, slow)
    ]
    return f"fast has {shown[0]} where SentencePiece has {shown[1]}"
