"""Duplicates, exact and near, found by datatrove's own steps, in passes that any of its executors can run.

Near: MinHash over shingles of words, banded. Two documents are a pair when all hashes of a band agree, and
pairs join to clusters, of which one document stays. With 14 bands of 8 a pair of similarity s (Jaccard, of
shingles) is found with probability 1 - (1 - s^8)^14: 0.05 at 0.5, 0.56 at 0.7, 0.92 at 0.8, 0.9996 at 0.9.

Source: Polyglot-Ko takes shingles of 13 words and 10 hashes and buckets by single ones (EleutherAI/dps,
dedup_job.py); ten hashes estimate a similarity to within 0.13, and one changed word of a Korean document of 50
leaves shingles of 13 a similarity of 0.49, of 5 one of 0.80. Hence 112 hashes, and shingles of 5.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.exact_dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
)
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from train.corpus.passes import Pass
from train.corpus.removals import Removals


@dataclass(frozen=True, slots=True, kw_only=True)
class MinHash:
    """How near duplicates are found."""

    words_per_shingle: int = 5
    """A document of fewer words has only exact duplicates."""
    num_bands: int = 14
    hashes_per_band: int = 8
    seed: int = 1

    def config(self) -> MinhashConfig:
        """datatrove's form of it: case, punctuation and white space are as nothing, numbers are not."""
        alike = TextNormConfig(norm_numbers=False, norm_unicode_diacritics=False)
        return MinhashConfig(
            n_grams=self.words_per_shingle,
            num_buckets=self.num_bands,
            hashes_per_bucket=self.hashes_per_band,
            seed=self.seed,
            norm_config=alike,
        )


class SpacedWords(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
    """Words between white space, as Polyglot-Ko's shingles are; datatrove's own for Korean is an analyser."""

    def __init__(self) -> None:
        super().__init__("spaces")

    def word_tokenize(self, text: str) -> list[str]:
        """The words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """The lines."""
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """The text as one sentence."""
        return [(0, len(text))]


def text_of(document: Document) -> str:
    """What exact duplicates have in common."""
    text: str = document.text
    return text


def deduplication(
    reader: PipelineStep, folder: Path, out: Path, *, num_tasks: int, exact: bool, near: MinHash | None
) -> list[Pass]:
    """The passes that copy the reader's documents, without duplicates, into JSONL files in `out`.

    Which one of some duplicates stays is the same in every run. What is removed is counted in `folder/removed`.
    `num_tasks`: of the passes over the documents; the reader must give each task the same ones every time.
    """
    passes = []
    kept: list[Any] = [reader]
    config = ExactDedupConfig(content_getter=text_of)
    if exact:
        signatures, found = str(folder / "exact" / "signatures"), str(folder / "exact" / "duplicates")
        Path(found).mkdir(parents=True, exist_ok=True)
        steps = [*kept, ExactDedupSignature(signatures, config)]
        passes += [
            Pass(name="exact duplicates", steps=steps, num_tasks=num_tasks),
            Pass(name="exact pairs", steps=[ExactFindDedups(signatures, found, config)], num_tasks=1),
        ]
        kept.append(ExactDedupFilter(found, config))
    if near is not None:
        signatures, pairs, clusters = (
            str(folder / "near" / name) for name in ("signatures", "pairs", "clusters")
        )
        minhash = near.config()
        steps = [*kept, MinhashDedupSignature(signatures, minhash, language=SpacedWords())]
        buckets = [MinhashDedupBuckets(signatures, pairs, config=minhash)]
        passes += [
            Pass(name="near duplicates", steps=steps, num_tasks=num_tasks),
            Pass(name="near pairs", steps=buckets, num_tasks=near.num_bands),
            Pass(name="clusters", steps=[MinhashDedupCluster(pairs, clusters, minhash)], num_tasks=1),
        ]
        kept.append(
            MinhashDedupFilter(clusters, exclusion_writer=Removals(folder / "removed" / "near", "near"))
        )
    if exact:
        kept[1] = ExactDedupFilter(found, config, Removals(folder / "removed" / "exact", "exact"))
    kept.append(JsonlWriter(str(out), compression="zstd"))
    return [*passes, Pass(name="copying", steps=kept, num_tasks=num_tasks)]
