"""What a training run is, as frozen values: everything that decides its result but the text and the seed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A Llama-shaped model's sizes."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_dim: int = 64
    max_positions: int = 1024
    """The longest conversation, in tokens."""
    rope_theta: float = 10_000.0
    embedding_std: float = 0.4
    """Of the embeddings when training begins; small models learn much slower from the usual 0.02."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A tokenizer trained from the text itself."""

    size: int
    """Tokens in all: special ones, 256 bytes, characters and merges. A multiple of 64."""

    def __post_init__(self) -> None:
        assert self.size % 64 == 0, "a multiple of 64, so that no row is added for alignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long, how fast and in what portions a model is trained."""

    epochs: int
    row_tokens: int
    """Tokens in a row; examples are packed into rows and do not see each other."""
    rows_per_step: int
    matrix_learning_rate: float
    """Of Muon, for the matrices inside the layers."""
    learning_rate: float
    """Of AdamW, for embeddings, head and norms."""
    warmup_share: float
    """Of all steps, those over which the learning rate rises from 0; then it falls along a cosine."""
    weight_decay: float
    """Of the matrices inside the layers."""
    adam_beta2: float
    max_grad_norm: float
    num_threads: int
    """CPU threads: sums are taken in the order threads give, so the number is part of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One published or shipped model, readable on one screen."""

    name: str
    source: str
    """Where the numbers were published or measured."""
    assumed: tuple[str, ...] = ()
    """Dotted names of values that the source does not state."""
    architecture: Architecture
    vocabulary: Vocabulary
    schedule: Schedule
