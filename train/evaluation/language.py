"""How well a model predicts text, and what its tokenizer spends on it: the same text for every tokenizer.

A text stands behind bos or, as in lm-evaluation-harness, eos where the tokenizer has no bos, so that all of it
is predicted; of a tokenizer with neither, the first token is given. A text longer than the window is read in
windows that overlap by half (malmoi.windows).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from malmoi import measure
from malmoi.byte_tokens import byte_tokens
from malmoi.errors import CorpusError
from malmoi.provenance import text_digest
from malmoi.windows import MAX_WINDOW, Window, windows
from train.corpus import reading
from train.corpus.shards import find_shards
from train.evaluation.results import LanguageReading, Reading
from train.evaluation.subject import Subject
from train.vocabulary.growth import domain_of

NUM_OPENINGS: Final = 8
"""Texts that a server goes on with, to measure its speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text, and where it is from."""

    domain: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A document's tokens, of which the first is given; counts are of the others and their text."""

    domain: str
    ids: Sequence[int]
    num_bytes: int
    num_characters: int
    num_words: int
    num_byte_tokens: int


def read_documents(option: str, corpus: Sequence[str], text_field: str, limit: int | None) -> list[Document]:
    """The texts that `corpus` names, as train.corpus.shards reads it; the first `limit` of each source.

    A text's domain is its file's name. Raises: CorpusError for what cannot be read, or a file without a text.
    """
    documents: list[Document] = []
    for shard in find_shards(corpus, in_order=True):
        found = reading.Reading(str(shard))
        texts = reading.read_texts(shard, text_field, "refuse", found)
        before = len(documents)
        for text in texts:
            if not text.strip():
                found.num_empty += 1
                continue
            documents.append(Document(domain=domain_of(shard), text=text))
            if len(documents) - before == limit:
                break
        if len(documents) == before:
            raise CorpusError(
                f"{option} {shard}",
                expected="texts",
                found=f"only empty ones ({found.num_empty})" if found.num_empty else "an empty file",
                next_step="name other files",
            )
    return documents


def digest_of(documents: Sequence[Document]) -> str:
    """Of all texts and what they are called."""
    return text_digest("\0".join(f"{document.domain}\0{document.text}" for document in documents))


def passages_of(documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
    """Every document of which something can be predicted, in their order.

    Raises: CorpusError if there is none.
    """
    partial = _partial_ids(tokenizer)
    found = [_passage(document, tokenizer, partial) for document in documents]
    passages = [passage for passage in found if passage is not None]
    if not passages:
        raise CorpusError(
            "texts",
            expected="one of two tokens or more",
            found="only shorter ones",
            next_step="name longer ones",
        )
    return passages


def _partial_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    decoder = tokenizer.backend_tokenizer.decoder
    return byte_tokens(tokenizer.get_vocab(), decoder.decode if decoder is not None else None)


def _passage(document: Document, tokenizer: PreTrainedTokenizerBase, partial: set[int]) -> Passage | None:
    text = document.text
    begins_with = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    start = [] if begins_with is None else [begins_with]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = [*start, *encoded["input_ids"]]
    if len(ids) < 2:
        return None
    predicted = text if start else text[encoded["offset_mapping"][0][1] :]
    return Passage(
        domain=document.domain,
        ids=ids,
        num_bytes=len(predicted.encode()),
        num_characters=len(predicted),
        num_words=len(predicted.split()),
        num_byte_tokens=sum(token in partial for token in ids[1:]),
    )


def nats_of(passages: Sequence[Passage], subject: Subject) -> list[float]:
    """What the model loses on each passage. Units: nats."""
    width = min(MAX_WINDOW, subject.max_tokens - 1)  # a server must have room to generate one
    parts: list[Window] = []
    owners: list[int] = []
    for number, passage in enumerate(passages):
        found = list(windows(passage.ids, width))
        parts += found
        owners += [number] * len(found)
    nats = [0.0] * len(passages)
    for owner, lost in zip(owners, subject.nats(parts), strict=True):
        nats[owner] += lost
    return nats


def language_reading(passages: Sequence[Passage], nats: Sequence[float]) -> LanguageReading:
    """The passages and what was lost on them, as results.json tells of them."""
    pairs = list(zip(passages, nats, strict=True))
    domains = dict.fromkeys(passage.domain for passage in passages)
    return LanguageReading(
        whole=_reading(pairs),
        domains={name: _reading([pair for pair in pairs if pair[0].domain == name]) for name in domains},
    )


def _reading(pairs: Sequence[tuple[Passage, float]]) -> Reading:
    passages = [passage for passage, _ in pairs]
    num_tokens = sum(len(passage.ids) - 1 for passage in passages)
    num_bytes = sum(passage.num_bytes for passage in passages)
    num_characters = sum(passage.num_characters for passage in passages)
    num_words = sum(passage.num_words for passage in passages)
    total = sum(nats for _, nats in pairs)
    return Reading(
        bits_per_byte=measure.bits_per_byte(total, num_bytes),
        bits_per_character=measure.bits_per_character(total, num_characters),
        tokens_per_character=num_tokens / num_characters,
        tokens_per_word=num_tokens / max(1, num_words),
        byte_share=sum(passage.num_byte_tokens for passage in passages) / num_tokens,
        num_bytes=num_bytes,
        num_characters=num_characters,
        num_tokens=num_tokens,
    )


def items_of(passages: Sequence[Passage], nats: Sequence[float]) -> list[dict[str, Any]]:
    """A line for each document."""
    return [
        {
            "domain": passage.domain,
            "nats": lost,
            "bytes": passage.num_bytes,
            "characters": passage.num_characters,
        }
        for passage, lost in zip(passages, nats, strict=True)
    ]
