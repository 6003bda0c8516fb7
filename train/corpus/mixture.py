"""How much of what is trained on, in tokens: the share of English, and documents that exercise new tokens.

Sources: 20 % English beside the new language, tedllm's model card; documents with few new tokens left out,
EEVE, arXiv:2402.14714, section 3, which does not say how few.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from tokenizers import Tokenizer

from malmoi.errors import CorpusError

Source = Literal["parallel", "korean", "english"]
SOURCES: Final[tuple[Source, ...]] = ("parallel", "korean", "english")
MEASURES: Final = np.dtype(
    [
        ("source", np.int8),  # its place in SOURCES
        ("num_bytes", np.int64),
        ("num_words", np.int32),
        ("num_tokens", np.int32),
        ("num_new", np.int32),
    ]
)
"""Of each document."""
TEXTS_AT_ONCE: Final = 1000

Bools = npt.NDArray[np.bool_]
Measures = npt.NDArray[np.void]


class TokenMeasurer(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Encodes this task's documents, and writes their MEASURES (`RANK.npy`) and ids (`RANK.ids`) to `folder`.

    The ids are unsigned 32-bit numbers, one document's behind the other's.
    """

    type = "🔢 - TOKENIZER"
    name = "malmoi token measures"

    def __init__(self, folder: Path, tokenizer: Path | None, *, num_old: int) -> None:
        super().__init__()
        self.folder = folder
        self.tokenizer = tokenizer
        """A tokenizer.json; None to count no tokens."""
        self.num_old = num_old
        """Ids below are of the base's own tokens."""

    def run(
        self,
        data: DocumentsPipeline,
        rank: int = 0,
        world_size: int = 1,  # noqa: ARG002
    ) -> Iterator[Document]:
        """Passes the documents on; the measures are on disk when it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tokenizer = None if self.tokenizer is None else Tokenizer.from_file(str(self.tokenizer))
        rows = []
        documents = iter(data)
        with (self.folder / f"{rank:05d}.ids").open("wb") as file:
            while batch := list(islice(documents, TEXTS_AT_ONCE)):
                encoded = _encode(tokenizer, [document.text for document in batch])
                for document, ids in zip(batch, encoded, strict=True):
                    ids.tofile(file)
                    text, source = document.text, SOURCES.index(document.metadata["source"])
                    num_new = int((ids >= self.num_old).sum())
                    rows.append((source, len(text.encode()), len(text.split()), len(ids), num_new))
                yield from batch
        np.save(self.folder / f"{rank:05d}.npy", np.array(rows, MEASURES))


def _encode(tokenizer: Tokenizer | None, texts: list[str]) -> list[npt.NDArray[np.uint32]]:
    if tokenizer is None:
        return [np.zeros(0, np.uint32) for _ in texts]
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(one.ids, np.uint32) for one in encoded]


def of_source(measures: Measures, source: Source) -> Bools:
    """Whether each document is of the source."""
    return np.asarray(measures["source"] == SOURCES.index(source))


def has_few_new(measures: Measures, min_new_share: float) -> Bools:
    """Whether each is a Korean document of which fewer than `min_new_share` of the tokens are new."""
    is_below = measures["num_new"] < min_new_share * measures["num_tokens"]
    return np.asarray(is_below & of_source(measures, "korean"))


def is_surplus(measures: Measures, is_kept: Bools, english_share: float, seed: int) -> Bools:
    """Whether each is an English document beyond what makes up `english_share` of all the kept tokens.

    Which ones, a draw decides. Pairs count as neither language, but as tokens.

    Raises: CorpusError if there is too little English.
    """
    is_english = of_source(measures, "english")
    num_tokens = np.where(is_kept, measures["num_tokens"], 0).astype(np.int64)
    num_others = int(num_tokens[~is_english].sum())
    wanted = english_share / (1 - english_share) * num_others
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(is_english & is_kept))
    upto = num_tokens[drawn].cumsum()
    num_english = int(upto[-1]) if len(upto) else 0
    if num_english < wanted:
        reached = num_english / max(1, num_english + num_others)
        raise CorpusError(
            "english",
            expected=f"{wanted:,.0f} tokens, to be {english_share:.0%} of all",
            found=f"{num_english:,}",
            next_step=f"add English text, or pass --english-share {int(reached * 1000) / 1000}",
        )
    surplus = np.zeros(len(measures), bool)
    surplus[drawn[upto - num_tokens[drawn] / 2 > wanted]] = True
    return surplus
