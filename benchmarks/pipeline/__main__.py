"""python -m benchmarks.pipeline: each step from an English base to its exports, if it is not there yet."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import tyro

from benchmarks import english_base
from benchmarks.pipeline import recipes
from benchmarks.texts import SEED
from malmoi.errors import reported_in_one_line

WORK = Path("build/benchmarks/pipeline")
RECIPES = "benchmarks.pipeline.recipes"
DIALOGUES = ("chatbot_songys", "human_rights_qa", "human_rights_counsel", "persona_chat_ko")
PREFERENCES = ("human_rights_pairs", "kosbi_pairs", "square_pairs")
MOST_ROWS = 4_000
"""Dialogues, and preferences, that are learnt."""
CHAT = ("sft", "dpo", "gptq", "bnb")
NUM_QUESTIONS = 300
"""Of a task, at most."""
THRESHOLD = 20
"""Occurrences that a new token has at least."""


def make(*, data: Path, out: Path = WORK) -> None:
    """Train a base, grow it, train it in stages, tune it, quantize it in both ways, and evaluate each.

    Args:
        data: directory with corpus_ko, corpus_en, instruct, prefs and eval/kobest, of .jsonl.gz files.
        out: directory for all that is made.
    """
    texts = english_base.divided(data / "corpus_ko", data / "corpus_en", out / "texts")
    untrained = out / "untrained"
    if not untrained.exists():
        english_base.write_untrained(texts, recipes.ARCHITECTURE, recipes.VOCAB_SIZE, untrained)
    file = {name: str(path) for name, path in texts.items()}
    held_out = ("--held-out", file["held_out_korean"], "--held-out-english", file["held_out_english"])
    pace = ("--rows-at-once", "8", "--evaluate-every", "100")
    steps = Steps(out)
    base = steps.run(
        *("base", "train", "pretrain", "--base", str(untrained), "--corpus", file["little"]),
        *("--english", file["english"], *held_out, "--recipe", f"{RECIPES}:BASE", *pace),
    )
    base /= f"1-{recipes.BASE.stages[0].name}"
    grown = steps.run(
        *("grown", "train", "vocabulary", "--base", str(base), "--corpus", file["korean"]),
        *("--recipe", f"{RECIPES}:GROWTH", "--threshold", str(THRESHOLD)),
    )
    staged = steps.run(
        *("staged", "train", "pretrain", "--base", str(grown), "--corpus", file["korean"]),
        *("--english", file["english"], *held_out, "--recipe", f"{RECIPES}:STAGES", *pace),
    )
    last = recipes.STAGES.stages[-1].name
    staged /= f"{len(recipes.STAGES.stages)}-{last}"
    tuning = {"sft": ("dialogues", "instruct", DIALOGUES), "dpo": ("preferences", "prefs", PREFERENCES)}
    tuned = staged
    for name, (kind, folder, files) in tuning.items():
        paths = [str(data / folder / f"{file}.jsonl.gz") for file in files]
        rows = steps.run(kind, "train", "data", f"--{kind}", *paths, "--on-bad-row", "skip")
        learnt = _drawn(rows / "train.jsonl", out / f"{kind}.jsonl")
        tuned = steps.run(
            *(name, "train", name, "--base", str(tuned), "--data", str(learnt)),
            *("--held-out", str(rows / "held_out.jsonl"), "--recipe", f"{RECIPES}:{name.upper()}"),
            *("--rows-at-once", "4"),
        )
    made = {"base": base, "grown": grown, "staged": staged, "sft": out / "sft", "dpo": tuned}
    for method in ("gptq", "bnb"):
        made[method] = steps.run(
            *(method, "quant", "export", str(tuned), "--method", method),
            *(("--korean", file["korean"], "--english", file["english"]) if method == "gptq" else ()),
        )
    measured = []
    for name, checkpoint in made.items():
        asked = ("--prompts-file", str(out / "dialogues" / "held_out.jsonl")) if name in CHAT else ()
        measured.append(
            steps.run(
                *(f"evaluated-{name}", "train", "evaluate", str(checkpoint), "--name", name),
                *("--korean", file["held_out_korean"], "--english", file["held_out_english"]),
                *("--benchmarks", "kobest", "--data", str(data / "eval" / "kobest"), "--shots", "0"),
                *("--limit", str(NUM_QUESTIONS), *asked),
            )
        )
    steps.run("comparison", "train", "compare", *map(str, measured), "--baseline", "dpo")


def _drawn(rows: Path, out: Path) -> Path:
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(SEED).shuffle(lines)
    out.write_text("".join(lines[:MOST_ROWS]), encoding="utf-8")
    return out


class Steps:
    """Runs commands whose result is a directory, each once; how long each took stands in steps.json."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._record = out / "steps.json"

    def run(self, name: str, room: str, *arguments: str) -> Path:
        """What `python -m ROOM ARGUMENTS --out OUT/NAME` makes."""
        made = self._out / name
        seconds = json.loads(self._record.read_text()) if self._record.exists() else {}
        if name in seconds:
            return made
        print(f"{name}: python -m {room} {' '.join(arguments)}", file=sys.stderr, flush=True)
        started = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-m", room, *arguments, "--out", str(made)]
        if subprocess.run(command, env=os.environ).returncode:
            raise SystemExit(f"{name} failed")
        seconds[name] = round(time.monotonic() - started)
        self._record.write_text(json.dumps(seconds, indent=1))
        return made


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(make, prog="python -m benchmarks.pipeline")
