"""tedllm: Llama-3-8B with 12,800 tokens more; here for Korean, by EEVE's way of choosing them."""

from typing import Final

from train.recipe import Growth, Similarity

TEDLLM: Final = Growth(
    name="tedllm",
    source="the card of tedllm; Gosal et al., arXiv:2407.12869, for the initialisation",
    assumed=("intermediate_size", "min_count", "per_bytes", "output_rows", "skip_space", "similarity"),
    num_new=12_800,
    intermediate_size=40_000,
    min_count=6_000,
    per_bytes=100 * 10**9,
    input_rows="similar",
    output_rows="similar",
    skip_space=True,
    similarity=Similarity(k=5, weighting="softmax", temperature=0.1),
)
