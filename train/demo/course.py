"""The demo from start to end: text, a base, its growth, stages, answers, preferences, an examination."""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from malmoi.chat import DEFAULT_SYSTEM_PROMPT, Message
from malmoi.errors import RecipeError
from malmoi.files import refuse_existing
from train.demo.conversations import conversations, preferences, sentences
from train.demo.english import english_sentences
from train.demo.examination import Report, examine, held_out_questions
from train.demo.questions import KINDS
from train.generation import Answerer
from train.pace import Pace
from train.pretraining.stages import Request, run_stages
from train.recipes.demo import ANSWERS, DEMO, GROWTH, PREFERENCES, STAGES
from train.training import train_base_model
from train.tuning.dialogues import Dialogue
from train.tuning.tuning import Request as TuneRequest
from train.tuning.tuning import tune
from train.vocabulary import command as growth_command
from train.vocabulary import growth

NUM_CONVERSATIONS: Final = 17_000
NUM_SENTENCES: Final = 2_000
NUM_ENGLISH: Final = 8_000
NUM_PREFERENCES, NUM_HELD_OUT = 400, 40
MEMORY_BYTES: Final = 10**9
NEVER: Final = 10**6
"""Steps, more than there are: only the end is measured, and a demo begins anew."""
REQUIRED_ACCURACY: Final = 0.9
OVERALL: Final = "held_out_accuracy"


def teach(
    out: Path,
    *,
    seed: int,
    overwrite: bool = False,
    num_conversations: int = NUM_CONVERSATIONS,
    kinds: Sequence[str] = tuple(KINDS),
    required_accuracy: float = REQUIRED_ACCURACY,
) -> Mapping[str, float]:
    """Makes the demo model in `out`: an English base, grown, trained in stages, tuned twice.

    The checkpoints on the way stay in `out.work`, with the conversations learnt (conversations.jsonl) and the
    questions examined (held_out.jsonl). Returns the metrics, accuracy on held-out questions first.
    `kinds`: of train.demo.questions, those that are taught and examined.

    Raises: RecipeError if the model answers too few held-out questions right; then nothing is left in `out`.
    """
    refuse_existing(out, overwrite)
    work = out.with_name(f"{out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    talks = list(conversations(num_conversations, seed, kinds))
    pairs, held_out = (
        list(preferences(num, seed, kinds)) for num, seed in ((NUM_PREFERENCES, seed), (NUM_HELD_OUT, seed + 1))
    )
    metrics: dict[str, float] = {}

    def examined(directory: Path) -> Mapping[str, float]:
        report = examine(Answerer.load(directory), held_out_questions(kinds))
        print_report(report)
        metrics.update(passed(report, seed, required_accuracy))
        return metrics

    _write_dialogues(talks, work / "conversations.jsonl")
    _write_dialogues([each.conversation for each in held_out_questions(kinds)], work / "held_out.jsonl")
    told("an English base")
    train_base_model(DEMO, english_sentences(NUM_ENGLISH, seed), work / "base", seed=seed)
    korean = _pretrained(talks, work, seed)
    told("answers")
    pace = Pace(rows_at_once=ANSWERS.rows_per_step, evaluate_every=NEVER, save_every=NEVER)
    dialogues = [Dialogue(messages=turns) for turns in talks]
    answering = TuneRequest(recipe=ANSWERS, base=korean, data=dialogues, seed=seed)
    tune(answering, work / "answers", work / "tuning", pace)
    told("preferences")
    preferring = TuneRequest(
        recipe=PREFERENCES, base=work / "answers", data=pairs, held_out=held_out, seed=seed
    )
    tune(preferring, out, work / "tuning", pace, overwrite=overwrite, examine=examined)
    return metrics


def _pretrained(talks: Sequence[Sequence[Message]], work: Path, seed: int) -> Path:
    """The base in `work`, grown and trained in stages: the checkpoint of the last."""
    text, format_text = work / "korean.jsonl", work / "format.jsonl"
    _write([*sentences(NUM_SENTENCES, seed), *(turn.content for turns in talks for turn in turns)], text)
    _write([DEFAULT_SYSTEM_PROMPT] * len(talks), format_text)
    told("its vocabulary grown")
    counted = (str(text), str(format_text))  # the format, too, is in every conversation
    asked = growth.Request(base=work / "base", corpus=counted, recipe=GROWTH, num_new=GROWTH.num_new, seed=seed)
    growth_command.run(
        asked, work / "grown", work / "growth", memory_bytes=MEMORY_BYTES, overwrite=False, held_out=()
    )
    told("Korean in seven stages")
    request = Request(recipe=STAGES, base=work / "grown", korean=(str(text),), seed=seed)
    pace = Pace(rows_at_once=STAGES.rows_per_step, evaluate_every=NEVER, save_every=NEVER)
    return run_stages(request, work / "stages", work / "training", pace)[-1]


def _write(texts: Sequence[str], file: Path) -> None:
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))


def _write_dialogues(dialogues: Iterable[Sequence[Message]], file: Path) -> None:
    rows = ({"messages": [turn.as_dict() for turn in turns]} for turns in dialogues)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def told(step: str) -> None:
    """Says on stderr what is being made."""
    print(f"demo: {step}", file=sys.stderr)


def passed(report: Report, seed: int, required: float = REQUIRED_ACCURACY) -> dict[str, float]:
    """The report as metrics.

    Raises: RecipeError if its accuracy is below the bar.
    """
    if report.accuracy < required:
        raise RecipeError(
            f"the demo trained with seed {seed}",
            expected=f"{required:.0%} of the held-out questions answered right",
            found=f"{report.accuracy:.1%}",
            next_step="nothing was saved; try another --seed, and compare library versions with docs/train.md",
        )
    of_kinds = {f"{OVERALL}/{kind}": round(report.accuracy_of(kind), 4) for kind in report.asked}
    return {OVERALL: round(report.accuracy, 4)} | of_kinds


def print_report(report: Report) -> None:
    """A line for each kind, on stderr."""
    for kind, asked in report.asked.items():
        print(f"{kind:15} {report.right[kind]:3} of {asked:3} held-out questions right", file=sys.stderr)
