"""python -m benchmarks.tuning: tunes a base on real data in several ways; writes RESULTS.md and curves.png."""

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import this_machine
from benchmarks.results import this_command, write_json
from benchmarks.tuning import report
from benchmarks.tuning.recipes import FEW
from malmoi.errors import reported_in_one_line

WORK = Path("build/benchmarks/tuning")
PACKAGES = ("malmoi", "torch", "transformers", "trl", "peft", "bitsandbytes")
DIALOGUES = ("chatbot_songys", "human_rights_qa", "human_rights_counsel", "persona_chat_ko")
PREFERENCES = ("human_rights_pairs", "kosbi_pairs", "square_pairs")
SEED = 0
NUM_ASKED, MAX_NEW_TOKENS = 100, 380
THRESHOLD = 8.5
NUM_METHODS, NUM_QUALITY = 4_000, 6_000
"""Dialogues of the comparison of methods, and of the pool that is rated."""


def measure(*, base: Path, instruct: Path, prefs: Path, out: Path = WORK) -> None:
    """Tune a base on real Korean dialogues and preferences.

    Args:
        base: checkpoint, as benchmarks.staged_training makes one.
        instruct: directory of .jsonl.gz files of dialogues.
        prefs: the same of preferences.
        out: directory for the results and all that is made on the way; what is there is not made again.
    """
    command, machine = this_command("benchmarks.tuning"), this_machine(*PACKAGES)
    out.mkdir(parents=True, exist_ok=True)
    rows = _data(instruct, prefs, out)
    methods = {
        name: _tuned("sft", name, base, rows["methods"], rows["held_out"], out) | _asked(out / name, rows)
        for name in ("full", "lora", "qlora")
    }
    quality = _quality(base, out, rows)
    preferred = _tuned("dpo", "preferred", out / "lora", rows["preferences"], rows["held_out_preferences"], out)
    results = {
        "command": command,
        "machine": asdict(machine),
        "num_rows": {name: _count(file) for name, file in rows.items()},
        "methods": methods,
        "quality": quality,
        "preferences": preferred | _asked(out / "preferred", rows),
    }
    write_json(out, results)
    (out / "RESULTS.md").write_text(report.render(results))
    (out / "curves.png").write_bytes(report.curves(results))
    print(out / "RESULTS.md")


def _data(instruct: Path, prefs: Path, out: Path) -> dict[str, Path]:
    """What malmoi-train data makes of the files, and the parts of it that each comparison learns from."""
    for kind, folder, names in (("dialogues", instruct, DIALOGUES), ("preferences", prefs, PREFERENCES)):
        if not (out / kind).exists():
            files = [str(folder / f"{name}.jsonl.gz") for name in names]
            _command("data", "--out", str(out / kind), f"--{kind}", *files, "--on-bad-row", "skip")
    lines = (out / "dialogues" / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(SEED).shuffle(lines)
    parts = {"methods": lines[:NUM_METHODS], "pool": lines[NUM_METHODS : NUM_METHODS + NUM_QUALITY]}
    for name, part in parts.items():
        (out / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    return {
        **{name: out / f"{name}.jsonl" for name in parts},
        "held_out": out / "dialogues" / "held_out.jsonl",
        "preferences": out / "preferences" / "train.jsonl",
        "held_out_preferences": out / "preferences" / "held_out.jsonl",
    }


def _count(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def _command(*arguments: str) -> tuple[float, int]:
    """Runs malmoi-train; its seconds, and its greatest memory in bytes."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "train", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"malmoi-train {' '.join(arguments)} failed"
    return time.monotonic() - started, usage.ru_maxrss * 1024


def _tuned(kind: str, name: str, base: Path, data: Path, held_out: Path, out: Path) -> dict[str, Any]:
    """One tuning by the command: its log, time and memory."""
    made, record = out / name, out / f"{name}.json"
    if not made.exists():
        recipe = f"benchmarks.tuning.recipes:{name.upper()}"
        asked = ("--base", str(base), "--data", str(data), "--held-out", str(held_out), "--out", str(made))
        seconds, peak_bytes = _command(kind, *asked, "--recipe", recipe, "--rows-at-once", "4")
        record.write_text(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes}))
    log = json.loads((made / "training_log.json").read_text())
    measured = [entry for entry in log if any(key.startswith("held_out") for key in entry)]
    spent: dict[str, Any] = json.loads(record.read_text())
    return spent | {"curve": measured}


def _asked(checkpoint: Path, rows: dict[str, Path]) -> dict[str, float]:
    """How greedy answers to held-out questions end."""
    from malmoi.chat import Message
    from train.generation import Answerer

    answerer = Answerer.load(checkpoint)
    asked = []
    for line in rows["held_out"].read_text(encoding="utf-8").splitlines():
        messages = [Message(**turn) for turn in json.loads(line)["messages"]]
        first = next(place for place, turn in enumerate(messages) if turn.role == "assistant")
        asked.append(messages[:first])
    asked = random.Random(SEED).sample(asked, NUM_ASKED)
    ended = [answer.has_ended for answer in answerer.answers(asked, MAX_NEW_TOKENS)]
    return {"eos_rate": sum(ended) / len(ended)}


def _quality(base: Path, out: Path, rows: dict[str, Path]) -> dict[str, Any]:
    """KoRAE's question: the dialogues that are rated highest, six times, against six times as many, once."""
    rated = out / "rated.jsonl"
    if not rated.exists():
        rated.write_text("".join(_rated(out / "full", rows["pool"])), encoding="utf-8")
    pool = [json.loads(line) for line in rated.read_text(encoding="utf-8").splitlines()]
    best = [row for row in pool if row["score"] >= THRESHOLD]
    others = random.Random(SEED).sample(pool, min(len(pool), FEW.epochs * len(best)))
    found: dict[str, Any] = {"num_rated": len(pool), "num_best": len(best), "num_others": len(others)}
    for name, chosen in (("few", best), ("many", others)):
        file = out / f"{name}.jsonl"
        plain = ({"messages": row["messages"]} for row in chosen)
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain))
        found[name] = _tuned("sft", name, base, file, rows["held_out"], out) | _asked(out / name, rows)
    return found


def _rated(judge: Path, pool: Path) -> list[str]:
    """The pool with scores: how much likelier the judge finds an answer after its own question than after
    another's, per token, as a rank from 0 to 10. The judge learnt from other dialogues.
    """
    from malmoi.chat import Message
    from train.tuning.dialogues import Dialogue

    rows = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    dialogues = [Dialogue(messages=tuple(Message(**turn) for turn in row["messages"])) for row in rows]
    shifted = [*dialogues[1:], dialogues[0]]
    swapped = [
        Dialogue(messages=(*other.messages[:-1], own.messages[-1]))
        for own, other in zip(dialogues, shifted, strict=True)
    ]
    fits = [
        other - own if math.isfinite(own) else -math.inf
        for own, other in zip(_losses(judge, dialogues), _losses(judge, swapped), strict=True)
    ]
    order = sorted(range(len(fits)), key=lambda place: fits[place])
    for rank, place in enumerate(order):
        rows[place]["score"] = round(10 * rank / (len(order) - 1), 2)
    return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]


def _losses(judge: Path, dialogues: Sequence[Any]) -> list[float]:
    """Nats per token of each dialogue's last answer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.tuning.examples import answer_ids, prompt_ids_of

    tokenizer = AutoTokenizer.from_pretrained(judge, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(judge, local_files_only=True).eval()
    losses = []
    for dialogue in dialogues:
        prompt = dialogue.messages[:-1]
        prompt_ids = prompt_ids_of(tokenizer, prompt)
        answer = answer_ids(tokenizer, prompt, prompt_ids, dialogue.messages[-1].content.strip())
        ids = torch.tensor([[*prompt_ids, *(answer or ())][: model.config.max_position_embeddings]])
        first = len(prompt_ids)
        if ids.shape[1] <= first:
            losses.append(math.inf)
            continue
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=ids.shape[1] - first + 1).logits[0, :-1].float()
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[0, first:])))
    return losses


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.tuning")
