"""Several results side by side: which is best, and what differs from the baseline by more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from malmoi.errors import CorpusError, RecipeError
from malmoi.json_lines import json_lines
from train.evaluation import results as files
from train.evaluation.bootstrap import (
    Difference,
    accuracy_difference,
    bits_per_byte_difference,
    macro_f1_difference,
)
from train.evaluation.results import Results

Kind = Literal["language", "benchmark", "chat", "speed"]
Item = Mapping[str, Any]
Asked = tuple[Kind, str, int | None]
"""What was asked, whichever metric is taken of the answers: kind, name and shots of a Line."""

SAME_OF_A_TASK: Final = ("split", "num_rows", "prompts", "version", "prompt_digest")
"""Fields of a Score that must agree; a chat template around the prompts is told, not refused."""
SAME_OF_A_CHAT: Final = ("num_prompts", "prompt_digest")
FEWEST_ITEMS: Final = 20
"""Of fewer, draws are too alike to tell anything: all of them agree on three documents out of three."""
CORRECT: Final[Mapping[str, str]] = {"acc": "correct", "acc_norm": "correct_norm"}
"""What of an item tells whether it is right, by the metric."""
BETTER: Final[Mapping[str, Literal["higher", "lower"]]] = {
    "bits_per_byte": "lower",
    "bits_per_character": "lower",
    "tokens_per_character": "lower",
    "tokens_per_word": "lower",
    "acc": "higher",
    "acc_norm": "higher",
    "f1": "higher",
    "exact_match": "higher",
    "eos_rate": "higher",
    "loop_rate": "lower",
    "korean_share": "higher",
    "characters_per_second": "higher",
}
"""A metric that is not here is neither better nor worse for being more."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is compared: one metric of one thing that was measured."""

    kind: Kind
    name: str
    """A task, or a language; of the other kinds, the kind."""
    metric: str
    shots: int | None = None
    """Examples in a task's prompt."""
    domain: str | None = None
    """Of a language's texts; None: all of them."""

    @property
    def asked(self) -> Asked:
        """See there."""
        return self.kind, self.name, self.shots


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number of one model."""

    value: float
    stderr: float | None = None
    difference: Difference | None = None
    """From the baseline; None of the baseline itself, and where no items can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The questions of a task, the documents of a language, or the prompts of a chat."""

    about: Mapping[str, Any]
    """What a result records of them."""
    items: tuple[Item, ...]
    """What the model made of each; none where that is not kept, as of a group of tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What `malmoi-train evaluate` wrote into a directory, taken apart."""

    folder: Path
    found: Results
    measured: Mapping[Line, Measured]
    questions: Mapping[Asked, Questions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every line of every result."""

    results: tuple[Result, ...]
    baseline: Result
    lines: Mapping[Line, tuple[Measured | None, ...]]
    """Of each result in turn; None where it does not have it."""

    def best(self, line: Line) -> frozenset[int]:
        """The places of the best results; none if all are alike, or more is neither better nor worse."""
        values = {place: found.value for place, found in enumerate(self.lines[line]) if found}
        if line.metric not in BETTER or len(set(values.values())) < 2:
            return frozenset()
        wanted = max(values.values()) if BETTER[line.metric] == "higher" else min(values.values())
        return frozenset(place for place, value in values.items() if value == wanted)

    @property
    def num_tested(self) -> int:
        """Differences that were tested for significance."""
        return sum(bool(found and found.difference) for line in self.lines.values() for found in line)


def compare(folders: Sequence[Path], baseline: str | None = None) -> Comparison:
    """The results in `folders`, against the one named `baseline`, or the first.

    Raises: RecipeError or CorpusError if there is no folder, or one holds no whole result; RecipeError if two
    have one name, none has the baseline's, or two results are not of the same questions.
    """
    if not folders:
        raise RecipeError(
            "DIR", expected="what `malmoi-train evaluate` wrote", found="no directory", next_step="name some"
        )
    results = tuple(map(read, folders))
    chosen = _find_baseline(results, baseline)
    for place, result in enumerate(results):
        if result.found.name in {earlier.found.name for earlier in results[:place]}:
            raise RecipeError(
                result.folder,
                expected="a name of its own",
                found=f"{result.found.name}, as in another",
                next_step="evaluate again with another --name",
            )
        for earlier in results[:place]:
            _refuse_other_questions(earlier, result)
    every = dict.fromkeys(line for result in results for line in result.measured)
    lines = {
        line: tuple(
            found and replace(found, difference=_difference(line, chosen, result))
            for result in results
            for found in [result.measured.get(line)]
        )
        for line in every
    }
    return Comparison(results=results, baseline=chosen, lines=lines)


def _find_baseline(results: Sequence[Result], name: str | None) -> Result:
    for result in results:
        if name in (None, result.found.name):
            return result
    raise RecipeError(
        "--baseline",
        expected=f"one of {', '.join(result.found.name for result in results)}",
        found=str(name),
        next_step="name one of the results",
    )


def read(folder: Path) -> Result:
    """The result in `folder`. Raises: RecipeError or CorpusError if there is none that is whole."""
    found = files.read(folder)
    return Result(
        folder=folder,
        found=found,
        measured=dict(_measured(found)),
        questions=dict(_questions(folder, found)),
    )


def _measured(found: Results) -> Iterator[tuple[Line, Measured]]:
    for language, reading in found.language.items():
        if reading:
            yield from _lines("language", language, asdict(reading.whole))
            for domain, part in reading.domains.items():
                line = Line("language", language, "bits_per_byte", domain=domain)
                yield line, Measured(value=part.bits_per_byte)
    for task, by_shots in found.benchmarks.items():
        for shots, score in by_shots.items():
            for metric, of_metric in score.metrics.items():
                measured = Measured(value=of_metric.value, stderr=of_metric.stderr)
                yield Line("benchmark", task, metric, shots), measured
    if found.chat:
        numbers = {name: value for name, value in asdict(found.chat).items() if name not in SAME_OF_A_CHAT}
        yield from _lines("chat", "chat", numbers)
    if found.speed:
        yield from _lines("speed", "speed", asdict(found.speed))


def _lines(kind: Kind, name: str, numbers: Mapping[str, float | None]) -> Iterator[tuple[Line, Measured]]:
    """Of all that was measured but the counts."""
    for metric, value in numbers.items():
        if value is not None and not metric.startswith("num_"):
            yield Line(kind, name, metric), Measured(value=value)


def _questions(folder: Path, found: Results) -> Iterator[tuple[Asked, Questions]]:
    for language, reading in found.language.items():
        if reading:
            about = {"num_bytes": reading.whole.num_bytes, "num_characters": reading.whole.num_characters}
            items = _items(folder / files.ITEMS_FOLDER / f"language-{language}.jsonl")
            yield ("language", language, None), Questions(about=about, items=items)
    for task, by_shots in found.benchmarks.items():
        for shots, score in by_shots.items():
            of_task = {name: getattr(score, name) for name in SAME_OF_A_TASK}
            items = _items(folder / score.items, score.num_rows) if score.items else ()
            yield ("benchmark", task, shots), Questions(about=of_task, items=items)
    if found.chat:
        yield (
            ("chat", "chat", None),
            Questions(about={key: getattr(found.chat, key) for key in SAME_OF_A_CHAT}, items=()),
        )


def _items(file: Path, num: int | None = None) -> tuple[Item, ...]:
    """The lines of `file`. Raises: CorpusError if there are others than `num`."""
    items = tuple(item for _, item in json_lines(file))
    if num is not None and len(items) != num:
        raise CorpusError(
            file, expected=f"{num} lines", found=str(len(items)), next_step="run `malmoi-train evaluate` again"
        )
    return items


def _refuse_other_questions(one: Result, other: Result) -> None:
    """Raises: RecipeError unless what both were asked is the same."""
    for asked in (asked for asked in one.questions if asked in other.questions):
        expected, found = one.questions[asked], other.questions[asked]
        every = {**expected.about, **found.about}
        differing = [key for key in every if expected.about.get(key) != found.about.get(key)]
        if not differing and _asked_items(expected) == _asked_items(found):
            continue
        _, name, shots = asked
        examples = "" if shots is None else f" with {shots} examples"
        told = [
            ", ".join(f"{key} {questions.about.get(key)}" for key in differing) or "the same in number"
            for questions in (expected, found)
        ]
        raise RecipeError(
            other.folder,
            expected=f"{name}{examples} as in {one.folder} ({told[0]})",
            found=f"other questions ({told[1]})",
            next_step="evaluate both with the same files, --prompts, --limit and --seed",
        )


def _asked_items(questions: Questions) -> list[Item]:
    """The same for the same questions, whatever was answered."""
    answers = ("prediction", "correct", "correct_norm", "nats")
    return [{key: value for key, value in item.items() if key not in answers} for item in questions.items]


def _difference(line: Line, baseline: Result, other: Result) -> Difference | None:
    """Tested on items that both results have; None where a metric cannot be had from them."""
    if other is baseline or line not in baseline.measured or line.asked not in baseline.questions:
        return None
    items = [
        [item for item in result.questions[line.asked].items if line.domain in (None, item.get("domain"))]
        for result in (baseline, other)
    ]
    first = items[0]
    if len(first) < FEWEST_ITEMS:
        return None
    if line.metric == "bits_per_byte":
        num_bytes = np.array([item["bytes"] for item in first])
        return bits_per_byte_difference(num_bytes, *(np.array([item["nats"] for item in one]) for one in items))
    if line.metric in CORRECT:
        return accuracy_difference(*([item[CORRECT[line.metric]] for item in one] for one in items))
    if line.metric == "f1":
        labels = [item["label"] for item in first]
        return macro_f1_difference(labels, *([item["prediction"] for item in one] for one in items))
    return None
