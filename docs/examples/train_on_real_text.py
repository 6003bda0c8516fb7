"""Trains a chat model larger than the demo on real text: JSON lines in, a checkpoint out.

    python docs/examples/train_on_real_text.py --chat QA.jsonl.gz ... --text CORPUS.jsonl.gz ... --out DIR

--chat: rows {"instruction", "output"}; --text: rows {"text"}. What it was run on, and what came of it, is
in docs/real_text.md.
"""

import gzip
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from malmoi.chat import Message
from malmoi.errors import reported_in_one_line
from train.recipe import Architecture, Recipe, Vocabulary
from train.recipes.demo import DEMO

MAX_CHARACTERS = 300
"""Longer rows are left out: an example must fit into a row of tokens."""
RECIPE = Recipe(
    name="real-text",
    source="docs/real_text.md",
    architecture=Architecture(hidden_size=256, intermediate_size=768, num_layers=6, num_heads=4),
    vocabulary=Vocabulary(size=8192),
    schedule=replace(DEMO.schedule, row_tokens=512, rows_per_step=12),
)


def rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Every row of the files, in order."""
    for file in files:
        opener = gzip.open if file.suffix == ".gz" else open
        with opener(file, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def train(
    chat: list[Path],
    text: Annotated[list[Path], tyro.conf.arg(help="files of {'text'} rows")],
    out: Path,
    *,
    num_texts: int = 10_000,
    epochs: int = 3,
    seed: int = 0,
) -> None:
    """Train on every conversation of `chat` and the first `num_texts` short rows of `text`."""
    from train.training import train_chat_model

    conversations = [
        (Message("user", row["instruction"]), Message("assistant", row["output"]))
        for row in rows(chat)
        if len(row["instruction"]) + len(row["output"]) <= MAX_CHARACTERS
    ]
    short = (row["text"] for row in rows(text) if len(row["text"]) <= MAX_CHARACTERS)
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, epochs=epochs))
    train_chat_model(recipe, conversations, itertools.islice(short, num_texts), out, seed=seed)
    print(out)


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(train)
