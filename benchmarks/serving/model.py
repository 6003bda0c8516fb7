"""The checkpoint both servers serve: a Llama of about 100 million random parameters with the KoRAE format."""

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.provenance import Origin
from tests.support.checkpoints import SENTENCES, render_saved, save_model, save_tokenizer

MAX_LENGTH = 1024
"""Longest sequence, in tokens."""
VOCAB_SIZE = 8192
FIRST_SYLLABLE, NUM_SYLLABLES = ord("가"), 11_172
ARCHITECTURE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "max_position_embeddings": MAX_LENGTH,
}


def prepared(path: Path) -> Checkpoint:
    """The checkpoint at `path`, made there if it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a process of its own: the memory torch takes is missing when the stock server wants 92 % of all.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
            apart.submit(create, path).result()
    return open_checkpoint(path)


def create(path: Path) -> None:
    """Makes the checkpoint."""
    origin = Origin(recipe="serving", stage="chat", seed=0)
    with create_checkpoint(path, origin, renderer=render_saved) as partial:
        save_tokenizer(partial, sentences=[*SENTENCES, *invented_sentences()], vocab_size=VOCAB_SIZE)
        save_model(partial, **ARCHITECTURE)  # type: ignore[arg-type]


def num_parameters(checkpoint: Checkpoint) -> int:
    """Parameters of a bf16 checkpoint."""
    return checkpoint.weight_bytes // 2


def invented_sentences(count: int = 20_000) -> Iterator[str]:
    """Sentences of invented Hangul words, enough of them for a vocabulary of VOCAB_SIZE tokens."""
    draw = random.Random(0)
    syllables = [chr(FIRST_SYLLABLE + draw.randrange(NUM_SYLLABLES)) for _ in range(1500)]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(8000)]
    for _ in range(count):
        yield " ".join(draw.choices(words, k=8))
