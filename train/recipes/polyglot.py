"""Polyglot-Ko: how its corpus was prepared, and what its models were measured on."""

from typing import Final

from train.corpus.deduplication import MinHash
from train.corpus.filters import Quality
from train.corpus.preparation import CorpusRecipe, Evaluation

POLYGLOT: Final = CorpusRecipe(
    name="polyglot",
    source="the card of Polyglot-Ko, arXiv:2306.02254, and EleutherAI/dps, korean_job.yaml and dedup_job.yaml",
    assumed=("near",),  # published: shingles of 13 words, 10 hashes, no bands; docs/corpus.md says why not here
    without=("new-tokens", "mixture", "curriculum"),
    pii="tokens",
    quality=Quality(),
    near=MinHash(),
    evaluation=Evaluation(
        tasks=("kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic"),
        metric="macro_f1",
        shots=(0, 5, 10, 50),
    ),
)
