"""A comparison as a person reads it: Markdown tables, with published numbers beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from malmoi.files import create_directory, refuse_existing
from malmoi.markdown import table
from train.evaluation.bootstrap import LEVEL, NUM_RESAMPLES, SEED, Difference
from train.evaluation.compare import BETTER, FEWEST_ITEMS, Comparison, Kind, Line, Measured, compare
from train.evaluation.plots import benchmark_plot, language_plot
from train.evaluation.published import Published, find_published
from train.evaluation.results import Results

PAGE_FILE: Final = "comparison.md"
LANGUAGE_PLOT: Final = "language.png"
BENCHMARK_PLOT: Final = "benchmarks.png"
OTHER_QUESTIONS: Final = "‡"
"""Behind a published number."""
BETTER_MARK: Final = "▲"
WORSE_MARK: Final = "▼"
FORMATS: Final = {
    "bits_per_byte": ".4f",
    "bits_per_character": ".4f",
    "tokens_per_character": ".3f",
    "tokens_per_word": ".3f",
    "byte_share": ".2%",
    "eos_rate": ".1%",
    "loop_rate": ".1%",
    "korean_share": ".1%",
    "mean_characters": ",.1f",
    "mean_tokens": ",.1f",
    "characters_per_second": ",.1f",
    "tokens_per_second": ",.1f",
}
"""Of a metric; a benchmark's, which are not here, have four digits."""


def run(
    folders: Sequence[Path],
    out: Path,
    *,
    published: Sequence[str] = (),
    baseline: str | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the page and its plots to `out`, whole or not at all.

    `folders`: of `malmoi-train evaluate`; `baseline`: a result's name, the first's by default.
    """
    refuse_existing(out, overwrite, inputs=folders)
    beside = find_published(published)
    comparison = compare(folders, baseline)
    plots = {LANGUAGE_PLOT: language_plot(comparison), BENCHMARK_PLOT: benchmark_plot(comparison, beside)}
    with create_directory(out, overwrite=overwrite) as partial:
        (partial / PAGE_FILE).write_text(markdown(comparison, beside), encoding="utf-8")
        for name, plot in plots.items():
            if plot:
                (partial / name).write_bytes(plot)


def markdown(comparison: Comparison, published: Sequence[Published]) -> str:
    """comparison.md."""
    kinds = {line.kind for line in comparison.lines}
    parts = ["# Checkpoints side by side", _legend(comparison), _results(comparison)]
    if "language" in kinds:
        parts += ["## Language modelling", _table(comparison, ("language",)), f"![language]({LANGUAGE_PLOT})"]
    if "benchmark" in kinds:
        parts += ["## Benchmarks", _table(comparison, ("benchmark",), published)]
        parts += [f"![benchmarks]({BENCHMARK_PLOT})"]
    if kinds & {"chat", "speed"}:
        parts += ["## Answers and speed", _table(comparison, ("chat", "speed"))]
    if comparison.num_tested:
        parts += [f"## Differences from {comparison.baseline.found.name}", _differences(comparison)]
    if published:
        parts += ["## Published, not measured here", _published(comparison, published)]
    return "\n\n".join(parts) + "\n"


def _legend(comparison: Comparison) -> str:
    told = ["Bold: the best of a line.", "± is the standard error."]
    if comparison.num_tested:
        told.append(
            f"{BETTER_MARK} better, {WORSE_MARK} worse than {comparison.baseline.found.name} by more than the "
            f"choice of questions or documents explains: paired bootstrap, {NUM_RESAMPLES:,} draws, seed "
            f"{SEED}, two-sided p < {LEVEL}. {comparison.num_tested} differences were tested, each for itself: "
            f"were there none, about one in {round(1 / LEVEL)} would be marked all the same. Not tested: fewer "
            f"than {FEWEST_ITEMS} items, and metrics whose answers are not kept."
        )
    return " ".join(told)


def _results(comparison: Comparison) -> str:
    rows: list[list[object]] = []
    notes: dict[str, list[str]] = {}
    for result in comparison.results:
        found = result.found
        digest = found.digest and found.digest[:12]
        told = (found.model, digest, _template(found), found.created, str(found.seed))
        rows.append([_head(comparison, found.name), *told])
        for note in (*found.notes, ", ".join(f"{name} {number}" for name, number in found.versions.items())):
            notes.setdefault(note, []).append(found.name)
    head = ["", "model", "digest", "benchmarks asked", "evaluated", "seed"]
    lines = [f"- {note} ({', '.join(names)})" for note, names in notes.items()]
    return table(head, rows) + "\n\n" + "\n".join(lines)


def _template(found: Results) -> str | None:
    """Whether the prompts of benchmarks went through the chat template."""
    ways = {score.is_chat for by_shots in found.benchmarks.values() for score in by_shots.values()}
    return " and ".join("chat template" if is_chat else "raw" for is_chat in sorted(ways)) or None


def _head(comparison: Comparison, name: str) -> str:
    is_baseline = name == comparison.baseline.found.name and len(comparison.results) > 1
    return f"{name} (baseline)" if is_baseline else name


def _table(comparison: Comparison, kinds: Sequence[Kind], published: Sequence[Published] = ()) -> str:
    lines = [line for line in comparison.lines if line.kind in kinds]
    beside = [
        model for model in published if any(model.score(line.name, line.shots, line.metric) for line in lines)
    ]
    rows = []
    for line in lines:
        best = comparison.best(line)
        cells = [_cell(line, found, place in best) for place, found in enumerate(comparison.lines[line])]
        rows.append(
            [*_what(comparison, line), *cells, *(_published_cell(comparison, model, line) for model in beside)]
        )
    head = ["", "examples", "questions", "metric"] if "benchmark" in kinds else ["", "metric"]
    names = [_head(comparison, result.found.name) for result in comparison.results]
    return table([*head, *names, *(f"{model.name} (published)" for model in beside)], rows)


def _about(comparison: Comparison, line: Line) -> list[Mapping[str, Any]]:
    """What each result that has the line records of its questions."""
    return [result.questions[line.asked].about for result in comparison.results if line in result.measured]


def _what(comparison: Comparison, line: Line) -> list[object]:
    if line.kind == "benchmark":
        about = _about(comparison, line)[0]
        asked = f"{about['num_rows']:,}" + (f", {about['split']}" if about["split"] else "")
        return [line.name, line.shots, asked, line.metric]
    name = line.name.capitalize() + (f", {line.domain}" if line.domain else "")
    return [name, line.metric.replace("_", " ")]


def _cell(line: Line, found: Measured | None, is_best: bool) -> str | None:
    if found is None:
        return None
    value = format(found.value, FORMATS.get(line.metric, ".4f"))
    parts = [f"**{value}**" if is_best else value]
    if found.stderr is not None:
        parts.append(f"± {found.stderr:.4f}")
    if found.difference and found.difference.is_significant:
        parts.append(_mark(line, found.difference))
    return " ".join(parts)


def _mark(line: Line, difference: Difference) -> str:
    is_better = (difference.value > 0) == (BETTER[line.metric] == "higher")
    return BETTER_MARK if is_better else WORSE_MARK


def _published_cell(comparison: Comparison, model: Published, line: Line) -> str | None:
    score = model.score(line.name, line.shots, line.metric)
    if score is None:
        return None
    stated = (model.prompts, model.split)
    asked = [(about["prompts"], about["split"]) for about in _about(comparison, line)]
    is_same = None not in stated and set(asked) == {stated}
    return f"{score.value:.4f}" if is_same else f"{score.value:.4f} {OTHER_QUESTIONS}"


def _differences(comparison: Comparison) -> str:
    others = [place for place, result in enumerate(comparison.results) if result is not comparison.baseline]
    rows = []
    for line, found in comparison.lines.items():
        told = [_difference(cell.difference if (cell := found[place]) else None) for place in others]
        if any(told):
            shots = "" if line.shots is None else f", {line.shots} examples"
            what = _what(comparison, line)
            rows.append([f"{what[0]}{shots}", what[-1], *told])
    head = [comparison.results[place].found.name for place in others]
    return "Each with its 95 % interval and p.\n\n" + table(["", "metric", *head], rows)


def _difference(found: Difference | None) -> str | None:
    if found is None:
        return None
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p {found.p:.4f}"


def _published(comparison: Comparison, published: Sequence[Published]) -> str:
    told = [f"- **{model.name}**: {model.url}, {model.table}. {model.note}".rstrip() for model in published]
    parts = [
        f"{OTHER_QUESTIONS}: of other prompts or of another split than measured here, or the source does not "
        "state them. Of no published number is it known that the questions were the same to the letter.",
        "\n".join(told),
    ]
    rest = _rest(comparison, published)
    if rest:
        head = ["not measured here", "examples", "metric", *(model.name for model in published if model.scores)]
        parts.append(table(head, rest))
    return "\n\n".join(parts)


def _rest(comparison: Comparison, published: Sequence[Published]) -> list[list[object]]:
    """The rows that no measured line has."""
    columns = [
        {(score.task, score.shots, score.metric): f"{score.value:.4f}" for score in model.scores}
        for model in published
        if model.scores
    ]
    measured = {(line.name, line.shots, line.metric) for line in comparison.lines}
    rows = dict.fromkeys(row for column in columns for row in column if row not in measured)
    return [[*row, *(column.get(row) for column in columns)] for row in rows]
