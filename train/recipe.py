"""What a training run is, as frozen values: everything that decides its result but the text and the seed."""

from dataclasses import dataclass
from typing import Literal


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


Initialiser = Literal["subword-mean", "first-subword", "similar", "mean", "random"]
"""What a new token's row is made of; train.vocabulary.embeddings has each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """How `similar` weighs old tokens: the top `k` by cosine in an external embedding."""

    k: int
    weighting: Literal["softmax", "normalised"]
    """softmax of the cosines over `temperature`, or the cosines over their sum."""
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a vocabulary is grown: which tokens, and the rows they begin with."""

    name: str
    source: str
    """Where the numbers were published."""
    assumed: tuple[str, ...] = ()
    """Names of values that the source does not state."""
    num_new: int
    """Tokens added; with the base's a multiple of 64."""
    intermediate_size: int
    """Tokens of the intermediate tokenizer, the source of candidates."""
    min_count: int
    """Occurrences below which a token is dropped ..."""
    per_bytes: int
    """... in a corpus of so many bytes; for another it is in proportion."""
    input_rows: Initialiser
    output_rows: Initialiser
    skip_space: bool
    """Leave tokens that are only white space or a byte out of the subwords that a new row is made of."""
    similarity: Similarity

    def threshold(self, num_bytes: int) -> int:
        """The least count a token must have in a corpus of `num_bytes`."""
        return max(1, round(self.min_count * num_bytes / self.per_bytes))
