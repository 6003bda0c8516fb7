"""From measurements to RESULTS.md: every verdict is computed."""

from io import BytesIO
from typing import Any

from benchmarks.machine import Machine

MOST_OF_A_TOKENIZATION = 0.25
LEAST_SPEED = {"sentencepiece": 1.0, "tekken": 1 / 3}
LEAST_SAVING = {"sentencepiece": 0.45, "tekken": 0.15}
MOST_MEMORY = 2 * 10**9
"""Also what --memory says."""


def render(results: dict[str, Any]) -> str:
    """RESULTS.md."""
    parts = [
        "# Growing a vocabulary: counting, choosing, and what comes of it",
        Machine(**results["machine"]).heading(results["command"]),
        *[_base(name, found) for name, found in results["bases"].items()],
        _growth(results),
    ]
    return "\n\n".join(parts) + "\n"


def _base(name: str, found: dict[str, Any]) -> str:
    table, loop, naive, same, half = (found[key] for key in ("table", "loop", "naive", "same", "fertility"))
    speed = found["counter"]["seconds"] / table["seconds"]
    share = loop["seconds"] / naive["seconds"]
    saving = 1 - half["after"] / half["before"]
    peak = max(table["peak_bytes"], loop["peak_bytes"])
    rows = [
        ("`Counter(text.split())`, one process", f"{found['counter']['seconds']:.1f} s", "", ""),
        (
            "word table and pre-tokens",
            f"{table['seconds']:.1f} s ({table['count_seconds']:.1f} + {table['cut_seconds']:.1f})",
            "",
            "",
        ),
        (
            "speed of the table against Counter",
            f"{speed:.2f}",
            f">= {LEAST_SPEED[name]:.2f}",
            _verdict(speed >= LEAST_SPEED[name]),
        ),
        ("intermediate tokenizer, 40,000", f"{loop['train_seconds']:.1f} s", "", ""),
        (f"the loop, {len(loop['rounds'])} rounds", f"{loop['seconds']:.2f} s", "", ""),
        ("one naive re-tokenization of the corpus", f"{naive['seconds']:.1f} s", "", ""),
        (
            "loop / one naive re-tokenization",
            f"{share:.2f}",
            f"<= {MOST_OF_A_TOKENIZATION}",
            _verdict(share <= MOST_OF_A_TOKENIZATION),
        ),
        (
            "intermediate tokenizer and loop / one re-tokenization",
            f"{(loop['seconds'] + loop['train_seconds']) / naive['seconds']:.2f}",
            "",
            "",
        ),
        (
            "greatest memory, workers included",
            f"{peak / 1e9:.2f} GB",
            f"< {MOST_MEMORY / 1e9:.0f} GB",
            _verdict(peak < MOST_MEMORY),
        ),
        (
            f"same tokens and counts as the naive loop on {same['megabytes']:.0f} MB",
            f"{same['same_tokens']}, {same['same_counts']} "
            f"({same['seconds']:.1f} s against {same['naive_seconds']:.1f} s)",
            "both",
            _verdict(same["same_tokens"] and same["same_counts"]),
        ),
        (
            f"tokens per character on the other half of the texts, {half['tokens']:,} new tokens",
            f"{half['before']:.3f} to {half['after']:.3f}, {saving:.1%} fewer",
            f">= {LEAST_SAVING[name]:.0%}",
            _verdict(saving >= LEAST_SAVING[name]),
        ),
        (
            "English lines that keep their ids",
            f"{half['lines_kept']:,} of {half['lines']:,}",
            "all",
            _verdict(half["lines_kept"] == half["lines"]),
        ),
    ]
    rounds = " ".join(f"{entry['num_encoded']:,}" for entry in loop["rounds"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"{table['megabytes']:.0f} MB of text, {table['words']:,} distinct words, {table['pretokens']:,} "
            f"distinct pre-tokens with Hangul; threshold {loop['threshold']}. "
            f"Words encoded in each round: {rounds}.",
            "",
            "| | measured | target | |",
            "| --- | --- | --- | --- |",
            *lines,
        ]
    )


def _growth(results: dict[str, Any]) -> str:
    rows = []
    for found in sized(results):
        table, loop, naive = found["table"], found["loop"], found["naive"]
        rows.append(
            f"| {table['megabytes']:.0f} | {table['pretokens']:,} | {table['seconds']:.1f} | "
            f"{loop['train_seconds']:.1f} | {loop['seconds']:.2f} | {naive['seconds']:.1f} | "
            f"{max(table['peak_bytes'], loop['peak_bytes']) / 1e9:.2f} |"
        )
    lines = [
        "## Growth with the corpus, SentencePiece family",
        "",
        "| MB | pre-tokens | table, s | intermediate, s | loop, s | one re-tokenization, s | memory, GB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "![growth](growth.png)",
    ]
    if "repeated" in results:
        table, loop = results["repeated"]["table"], results["repeated"]["loop"]
        lines += [
            "",
            f"Ten copies of the corpus, {table['megabytes']:.0f} MB, with `--memory 2GB`: "
            f"{table['seconds']:.1f} s; greatest memory while counting {table['peak_bytes'] / 1e9:.2f} GB, in "
            f"the loop {loop['peak_bytes'] / 1e9:.2f} GB (workers and libraries included): "
            f"{_verdict(max(table['peak_bytes'], loop['peak_bytes']) < MOST_MEMORY)}.",
        ]
    return "\n".join(lines)


def sized(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements by size, the whole corpus last."""
    return [*results["growth"], results["bases"]["sentencepiece"]]


def growth_plot(results: dict[str, Any]) -> bytes:
    """Seconds against megabytes, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    found = sized(results)
    megabytes = [entry["table"]["megabytes"] for entry in found]
    for label, seconds in (
        ("word table", [entry["table"]["seconds"] for entry in found]),
        ("loop, all rounds", [entry["loop"]["seconds"] for entry in found]),
        ("one naive re-tokenization", [entry["naive"]["seconds"] for entry in found]),
    ):
        axes.plot(megabytes, seconds, marker="o", label=label)
    axes.set_xlabel("MB of text")
    axes.set_ylabel("seconds")
    axes.legend()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"
