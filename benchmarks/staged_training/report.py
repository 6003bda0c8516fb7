"""From measurements to RESULTS.md and curves.png: every verdict is computed."""

from io import BytesIO
from typing import Any

from benchmarks.machine import Machine
from benchmarks.staged_training.recipes import ARCHITECTURE, BASE, LEARNING_RATE, NUM_NEW, VOCAB_SIZE

LANGUAGES = ("korean", "english")
STRAW_MEN = ("mean", "random")


def render(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    parts = [
        "# An English base made Korean: seven stages, all at once, no new tokens",
        Machine(**results["machine"]).heading(results["command"]),
        _setting(results),
        "## The new rows before any training",
        _initialisers(results["initialisers"]),
        "## After the same number of tokens",
        _arms(results["arms"]),
        "![curves](curves.png)",
        "A token of the grown vocabulary is more text than one of the base: with the same number of tokens the "
        "way without new ones has read less. Seconds are of training alone, without loading and measuring.",
        "## Stage by stage",
        _stages(results["arms"]["seven stages"]),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(results: dict[str, Any]) -> str:
    sizes = ARCHITECTURE
    return (
        f"The base: a Llama of {sizes.num_layers} layers, width {sizes.hidden_size}, {VOCAB_SIZE:,} "
        f"SentencePiece tokens with byte fallback, trained on {results['base_tokens']:,} tokens, "
        f"{BASE.english_share:.0%} of them English, the rest Korean that the project generates and a little "
        f"real text. Then {NUM_NEW:,} Korean tokens more (`malmoi-train vocabulary --recipe eeve`), and "
        f"{results['tokens']:,} tokens of Korean for each way, AdamW at {LEARNING_RATE:g}. Bits per byte are "
        "of texts that none was trained on."
    )


def _initialisers(losses: list[dict[str, Any]]) -> str:
    best_straw = min(loss["bits_per_byte"] for loss in losses if loss["input_rows"] in STRAW_MEN)
    rows = [
        f"| {loss['input_rows']} | {loss['output_rows']} | {loss['bits_per_byte']:.3f} | "
        + ("" if loss["input_rows"] in STRAW_MEN else f"{loss['bits_per_byte'] - best_straw:+.3f}")
        + " |"
        for loss in losses
    ]
    head = "| input rows | output rows | bits per byte, Korean | against the better of mean and random |"
    return "\n".join([head, "| --- | --- | --- | --- |", *rows])


def _arms(arms: dict[str, list[dict[str, Any]]]) -> str:
    rows = []
    for name, points in arms.items():
        first, last = points[0], points[-1]
        shown = [
            f"{first[f'{language}_bits_per_byte']:.3f} to {last[f'{language}_bits_per_byte']:.3f}"
            for language in LANGUAGES
        ]
        rows.append(f"| {name} | {last['tokens']:,} | {last['seconds']:.0f} | {' | '.join(shown)} |")
    head = "| | tokens | training, s | Korean, bits per byte | English, bits per byte |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def _stages(points: list[dict[str, Any]]) -> str:
    last = {point["stage"]: point for point in points}
    rows = [
        f"| {stage} | {point['tokens']:,} | {point['seconds']:.0f} | {point['korean_bits_per_byte']:.3f} | "
        f"{point['english_bits_per_byte']:.3f} |"
        for stage, point in last.items()
    ]
    head = "| after stage | tokens | training, s | Korean, bits per byte | English, bits per byte |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def curves(results: dict[str, Any]) -> bytes:
    """Bits per byte of both languages against tokens and against seconds, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2, sharey="row")
    for row, language in zip(grid, LANGUAGES, strict=True):
        for axes, measure in zip(row, ("tokens", "seconds"), strict=True):
            for name, points in results["arms"].items():
                axes.plot(
                    [point[measure] for point in points],
                    [point[f"{language}_bits_per_byte"] for point in points],
                    marker=".",
                    label=name,
                )
            axes.set_xlabel(measure)
            axes.set_ylabel(f"{language}, bits per byte")
    grid[0][0].legend()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
