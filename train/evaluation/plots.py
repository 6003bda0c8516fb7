"""A comparison's plots, as PNG."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

from train.evaluation.compare import Comparison, Line
from train.evaluation.published import Published

METRICS: Final = ("f1", "acc")
"""Of a task the first that it has is drawn."""
NUM_COLUMNS: Final = 3


def language_plot(comparison: Comparison) -> bytes | None:
    """Bits per byte of each language and domain, a bar for each result; None if none was measured."""
    lines = [line for line in comparison.lines if line.kind == "language" and line.metric == "bits_per_byte"]
    if not lines:
        return None
    num = len(comparison.results)
    figure = _figure(8, 1 + 0.16 * (num + 1) * len(lines))
    axes = figure.subplots()
    for place, result in enumerate(comparison.results):
        found = [(row, cell.value) for row, line in enumerate(lines) if (cell := comparison.lines[line][place])]
        heights = [row + (place - (num - 1) / 2) / (num + 1) for row, _ in found]
        bits = [value for _, value in found]
        if bits:
            axes.barh(heights, bits, height=1 / (num + 1), label=result.found.name, color=f"C{place}")
    axes.set_yticks(range(len(lines)), [line.domain or f"{line.name}, all" for line in lines])
    axes.invert_yaxis()
    axes.set(xlabel="bits per byte, lower is better")
    figure.legend(loc="outside upper left", ncols=NUM_COLUMNS)
    return _png(figure)


def benchmark_plot(comparison: Comparison, published: Sequence[Published]) -> bytes | None:
    """Each task by the number of examples, with standard errors; published numbers dashed; None if none."""
    tasks = list(dict.fromkeys(line.name for line in comparison.lines if line.kind == "benchmark"))
    drawn = [lines for task in tasks if (lines := _drawn_lines(comparison, task))]
    if not drawn:
        return None
    num_rows = -(-len(drawn) // NUM_COLUMNS)
    figure = _figure(4 * NUM_COLUMNS, 1 + 3 * num_rows)
    panels = list(figure.subplots(num_rows, NUM_COLUMNS, squeeze=False).flat)
    legend: dict[str, Any] = {}
    for axes, lines in zip(panels, drawn, strict=False):
        legend |= _draw_task(axes, comparison, lines, published)
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    figure.legend(legend.values(), legend.keys(), loc="outside upper left", ncols=NUM_COLUMNS)
    return _png(figure)


def _drawn_lines(comparison: Comparison, task: str) -> list[Line]:
    """Of the task's first metric, by the number of examples."""
    lines = [line for line in comparison.lines if line.kind == "benchmark" and line.name == task]
    metric = next((metric for metric in METRICS if any(line.metric == metric for line in lines)), None)
    return sorted((line for line in lines if line.metric == metric), key=lambda line: line.shots or 0)


def _draw_task(
    axes: Any, comparison: Comparison, lines: Sequence[Line], published: Sequence[Published]
) -> dict[str, Any]:
    """What was drawn, by name; a model has one colour in every panel."""
    drawn = {}
    for place, result in enumerate(comparison.results):
        found = [(row, cell) for row, line in enumerate(lines) if (cell := comparison.lines[line][place])]
        if found:
            rows = [row + (place - (len(comparison.results) - 1) / 2) * 0.05 for row, _ in found]
            errors = [cell.stderr or 0 for _, cell in found]
            values = [cell.value for _, cell in found]
            drawn[result.found.name] = axes.errorbar(
                rows, values, errors, marker="o", capsize=2, color=f"C{place}"
            )
    for place, model in enumerate(published, len(comparison.results)):
        scores = [
            (row, score.value)
            for row, line in enumerate(lines)
            if (score := model.score(line.name, line.shots, line.metric))
        ]
        if scores:
            (curve,) = axes.plot(*zip(*scores, strict=True), linestyle="--", marker="x", color=f"C{place}")
            drawn[f"{model.name} (published)"] = curve
    axes.set_xticks(range(len(lines)), [str(line.shots) for line in lines])
    axes.set_xlim(-0.5, len(lines) - 0.5)
    axes.set(title=lines[0].name, xlabel="examples", ylabel=lines[0].metric)
    return drawn


def _figure(width: float, height: float) -> Any:
    """In inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
