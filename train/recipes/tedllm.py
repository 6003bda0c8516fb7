"""tedllm: Llama-3-8B with 12,800 tokens more: embeddings, then everything, then annealing; here for Korean."""

from typing import Final

from train.recipe import Growth, Pretraining, Similarity, Stage

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

TOKENS_PER_STEP: Final = 720 * 8192
IN_THREE_STAGES: Final = Pretraining(
    name="tedllm",
    source="the card of tedllm: tokens of the first two stages, batch, peak learning rate, mixture, decay",
    assumed=(
        "row_tokens",  # Llama 3's context
        "stages.decay",
        "stages.warmup_steps",
        "adam_betas",
        "max_grad_norm",
        "order",
    ),
    stages=(
        Stage(
            name="embeddings",
            input_rows="all",
            output_rows="all",
            tokens=8_600_000_000,
            learning_rate=7.5e-5,
            decay="constant",
            warmup_steps=100,
        ),
        Stage(
            name="everything",
            input_rows="all",
            output_rows="all",
            body="full",
            tokens=164_000_000_000,
            learning_rate=7.5e-5,
            decay="constant",
            warmup_steps=100,
        ),
        Stage(
            name="annealing",
            input_rows="all",
            output_rows="all",
            body="full",
            tokens=500 * TOKENS_PER_STEP,
            learning_rate=7.5e-5,
            decay="linear",
        ),
    ),
    row_tokens=8192,
    rows_per_step=720,
    english_share=0.2,
    weight_decay=0.1,
    adam_betas=(0.9, 0.95),
    max_grad_norm=1.0,
)
