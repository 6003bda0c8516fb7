"""EEVE-Korean: SOLAR-10.7B with 8,960 Korean tokens more."""

from typing import Final

from train.recipe import Growth, Similarity

EEVE: Final = Growth(
    name="eeve",
    source="EEVE, arXiv:2402.14714, sections 2 and 3.1, and the card of EEVE-Korean-10.8B-v1.0",
    assumed=("skip_space", "similarity"),
    num_new=8_960,
    intermediate_size=40_000,
    min_count=6_000,
    per_bytes=100 * 10**9,
    input_rows="subword-mean",
    output_rows="first-subword",
    skip_space=False,
    similarity=Similarity(k=5, weighting="softmax", temperature=0.1),
)
