"""Random Llamas with EEVE's vocabulary, of a size that people train, and of one that a test can."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving.model import FIRST_SYLLABLE, NUM_SYLLABLES
from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.provenance import Origin
from tests.support.checkpoints import SENTENCES, render_saved, save_model, save_tokenizer

MAX_LENGTH: Final = 2048
"""Longest sequence, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model, and the step it is trained with."""

    num_old: int
    """Tokens of the base."""
    num_new: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    rows: int
    """Of a training step."""
    row_tokens: int

    @property
    def architecture(self) -> dict[str, int | bool]:
        """As transformers' LlamaConfig has it, but for the vocabulary."""
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "max_position_embeddings": MAX_LENGTH,
            "tie_word_embeddings": False,
        }


SHAPES: Final = {
    "1b": Shape(  # TinyLlama's, arXiv:2401.02385, and EEVE's tokens
        num_old=32_000,
        num_new=8_960,
        hidden_size=2048,
        intermediate_size=5632,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        rows=8,
        row_tokens=1024,
    ),
    "tiny": Shape(
        num_old=512,
        num_new=128,
        hidden_size=128,
        intermediate_size=256,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        rows=2,
        row_tokens=32,
    ),
}


def create(shape: Shape, out: Path) -> Checkpoint:
    """A chat checkpoint of that shape, at `out`."""
    origin = Origin(recipe="benchmarks.gpu", stage="chat", seed=0)
    vocab_size = shape.num_old + shape.num_new
    with create_checkpoint(out, origin, renderer=render_saved) as partial:
        texts = [*SENTENCES, *sentences(20 * vocab_size, num_syllables=min(NUM_SYLLABLES, vocab_size // 4))]
        save_tokenizer(partial, sentences=texts, vocab_size=vocab_size)
        save_model(partial, **shape.architecture)  # type: ignore[arg-type]
    return open_checkpoint(out)


def sentences(count: int, *, num_syllables: int = NUM_SYLLABLES) -> Iterator[str]:
    """Sentences of invented Hangul words, nearly each of them another, so that any vocabulary fills up."""
    draw = random.Random(0)
    syllables = [chr(FIRST_SYLLABLE + number) for number in range(num_syllables)]
    for _ in range(count):
        yield " ".join("".join(draw.choices(syllables, k=3)) for _ in range(8))
