"""Result directories as `malmoi-train evaluate` writes them, of models whose every answer is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lm_eval.tasks.kobest.utils import macro_f1_score

from malmoi.measure import bits_per_byte, bits_per_character
from train.evaluation.results import Chat, LanguageReading, Metric, Reading, Results, Score, write, write_items

LABELS = tuple(number % 2 for number in range(60))
SCORE = Score(
    metrics={},
    num_rows=0,
    prompt_digest="0123456789abcdef",
    prompts="harness",
    is_chat=False,
    split="test",
    version="1.0",
    items=None,
)


def answers(num_right: int) -> list[int]:
    """To LABELS, of which the first `num_right` are right."""
    return [label if place < num_right else 1 - label for place, label in enumerate(LABELS)]


def create_result(
    folder: Path,
    name: str,
    *,
    answered: Mapping[tuple[str, int], Sequence[int]],
    nats: Sequence[float] = (),
    chat: Chat | None = None,
    score: Score = SCORE,
    notes: tuple[str, ...] = (),
) -> Path:
    """A result of tasks answered so, with documents of 100 bytes and 40 characters that took so many nats.

    `score`: what is recorded of the tasks' questions.
    """
    folder.mkdir(parents=True)
    benchmarks: dict[str, dict[int, Score]] = {}
    for (task, shots), given in answered.items():
        benchmarks.setdefault(task, {})[shots] = _create_task(
            folder, f"items/{task}-{shots}.jsonl", given, score
        )
    if nats:
        documents = [{"domain": ("law", "news")[place % 2], "nats": lost} for place, lost in enumerate(nats)]
        sizes = {"bytes": 100, "characters": 40}
        write_items(folder, "items/language-korean.jsonl", [document | sizes for document in documents])
    domains = {"law": _reading(nats[::2]), "news": _reading(nats[1::2])} if nats else {}
    korean = LanguageReading(whole=_reading(nats), domains=domains) if nats else None
    results = Results(
        name=name,
        model=f"{name}-checkpoint",
        digest="fedcba9876543210",
        created="2026-11-21T12:00:00+00:00",
        seed=1234,
        versions={"lm_eval": "0.4.13"},
        language={"korean": korean, "english": None},
        benchmarks=benchmarks,
        chat=chat,
        speed=None,
        notes=notes,
    )
    write(folder, results)
    return folder


def _create_task(folder: Path, file: str, given: Sequence[int], score: Score) -> Score:
    pairs = list(zip(LABELS, given, strict=False))
    rows = [
        {"id": place, "label": label, "prediction": answer, "correct": label == answer}
        for place, (label, answer) in enumerate(pairs)
    ]
    write_items(folder, file, rows)
    accuracy = sum(label == answer for label, answer in pairs) / len(pairs)
    metrics = {
        "acc": Metric(value=accuracy, stderr=0.05),
        "f1": Metric(value=float(macro_f1_score(pairs)), stderr=0.06),
    }
    return replace(score, metrics=metrics, num_rows=len(pairs), items=file)


def _reading(nats: Sequence[float]) -> Reading:
    return Reading(
        bits_per_byte=bits_per_byte(sum(nats), 100 * len(nats)),
        bits_per_character=bits_per_character(sum(nats), 40 * len(nats)),
        tokens_per_character=0.75,
        tokens_per_word=2.5,
        byte_share=0.01,
        num_bytes=100 * len(nats),
        num_characters=40 * len(nats),
        num_tokens=30 * len(nats),
    )
