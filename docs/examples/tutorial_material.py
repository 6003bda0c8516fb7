"""What docs/tutorial.md begins with: a small English base and Korean texts, all of it made on the spot.

    python docs/examples/tutorial_material.py --out DIR

Writes to DIR: base, a checkpoint of three layers that has read English sentences only; korean.jsonl and
held_out.jsonl, plain texts; dialogues.jsonl and preferences.jsonl, questions of four kinds with answers.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import tyro

from malmoi.chat import DEFAULT_SYSTEM_PROMPT, Message
from malmoi.errors import reported_in_one_line
from malmoi.files import create_directory
from train.__main__ import LOUD_AT_IMPORT
from train.demo.conversations import conversations, preferences, sentences
from train.demo.english import english_sentences
from train.recipes.demo import DEMO

KINDS: Final = ("capital", "opposite", "greeting", "month")
NUM_ENGLISH, NUM_SENTENCES, NUM_HELD_OUT, NUM_DIALOGUES, NUM_PREFERENCES = 8_000, 2_000, 500, 4_000, 400
SEED: Final = 0


def make(out: Path) -> None:
    """Make the base and the texts.

    Args:
        out: Directory to write them to.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in LOUD_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    from train.training import train_base_model

    talks = list(conversations(NUM_DIALOGUES, SEED, KINDS))
    pairs = preferences(NUM_PREFERENCES, SEED, KINDS)
    plain = [*sentences(NUM_SENTENCES, SEED), *(turn.content for talk in talks for turn in talk)]
    unseen = sorted(set(sentences(NUM_HELD_OUT, SEED + 1)) - set(plain))
    # The chat format puts the system prompt before every dialogue: its words are to become tokens, too.
    korean = [*plain, *[DEFAULT_SYSTEM_PROMPT] * len(talks)]
    with create_directory(out) as partial:
        train_base_model(DEMO, english_sentences(NUM_ENGLISH, SEED), partial / "base", seed=SEED)
        write(partial / "korean.jsonl", ({"text": text} for text in korean))
        write(partial / "held_out.jsonl", ({"text": text} for text in unseen))
        write(partial / "dialogues.jsonl", ({"messages": rows(talk)} for talk in talks))
        write(
            partial / "preferences.jsonl",
            ({"prompt": rows(pair.prompt), "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs),
        )
    print(out)


def rows(messages: Iterable[Message]) -> list[dict[str, str]]:
    """Messages as JSON has them."""
    return [message.as_dict() for message in messages]


def write(file: Path, lines: Iterable[dict[str, Any]]) -> None:
    """JSON lines."""
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(make)
