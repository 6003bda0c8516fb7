"""What a person looks at after a check: one page of tables, and plots of where parent and export differ."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from malmoi.markdown import table
from quant.fidelity import TOKEN_KINDS, Fidelity, Language, Score, TextFidelity, TokenGroup
from quant.losses import NATS_PER_BIT, Numbers, TokenLosses

PLOT_FILE: Final = "fidelity.png"
MIB: Final = 1 << 20
SMALLEST_KL: Final = 1e-7
"""Nats; below it fp32 has nothing to say."""
NUM_POINTS: Final = 500


def markdown(fidelity: Fidelity) -> str:
    """fidelity.md."""
    parts = [
        "# An export against its parent",
        f"{_settings(fidelity)}. Export {fidelity.export[:12]}, parent {fidelity.parent[:12]}, both loaded "
        "with transformers. KL is of the parent's next-token distribution to the export's, in nats per token; "
        "top-1 is the share of predictions in which both find the same token likeliest.",
        _texts(fidelity.text),
        _by_token(fidelity.text),
    ]
    if fidelity.answers:
        parts += ["## Answers", _answers(fidelity)]
    if fidelity.kobest:
        rows = [
            [task, score.num, score.metric, f"{score.parent:.4f}", f"{score.export:.4f}", _signed(score)]
            for task, score in fidelity.kobest.items()
        ]
        head = ["task", "questions", "metric", "parent", "export", "difference"]
        parts += ["## KoBEST, no examples", table(head, rows)]
    parts += ["## Size and speed", _sizes(fidelity), f"![where they differ]({PLOT_FILE})", _origin(fidelity)]
    return "\n\n".join(parts) + "\n"


def _settings(fidelity: Fidelity) -> str:
    shown = ("bits", "group_size", "sym", "desc_act", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
    values = [
        f"{name.removeprefix('bnb_4bit_')} {fidelity.settings[name]}"
        for name in shown
        if name in fidelity.settings
    ]
    return f"{fidelity.method}: {', '.join(values)}" if values else fidelity.method


def _texts(texts: Mapping[Language, TextFidelity | None]) -> str:
    rows = [
        [
            language.capitalize(),
            found.num_tokens,
            _pair(found.parent.bits_per_byte, found.export.bits_per_byte, 4),
            f"{found.export.bits_per_byte / found.parent.bits_per_byte - 1:+.2%}",
            _pair(found.parent.perplexity, found.export.perplexity, 3),
            *_distance(found),
        ]
        for language, found in texts.items()
        if found
    ]
    head = ["", "tokens", "bits per byte, parent → export", "", "perplexity, parent → export"]
    return table([*head, "mean KL", "p99 KL", "top-1"], rows)


def _by_token(texts: Mapping[Language, TextFidelity | None]) -> str:
    rows = [
        [
            f"{language.capitalize()}, {kind}",
            group.num_tokens,
            _pair(group.parent_bits_per_token, group.export_bits_per_token, 3),
            *_distance(group),
        ]
        for language, found in texts.items()
        if found
        for kind, group in found.by_token.items()
        if group
    ]
    return table(["tokens", "number", "bits per token, parent → export", "mean KL", "p99 KL", "top-1"], rows)


def _distance(found: TextFidelity | TokenGroup) -> list[str]:
    return [f"{found.kl_mean:.5f}", f"{found.kl_p99:.5f}", f"{found.top1_agreement:.2%}"]


def _answers(fidelity: Fidelity) -> str:
    answers = fidelity.answers
    assert answers is not None
    rows = [
        [name, f"{rates.eos_rate:.1%}", f"{rates.loop_rate:.1%}"]
        for name, rates in (("parent", answers.parent), ("export", answers.export))
    ]
    return table([f"{answers.num_prompts:,} prompts", "ended by eos", "ended in a loop"], rows)


def _sizes(fidelity: Fidelity) -> str:
    size, speed = fidelity.size, fidelity.speed
    rows = [
        ["MiB on disk", *_mib(size.parent_disk_bytes, size.export_disk_bytes)],
        ["MiB when loaded", *_mib(size.parent_memory_bytes, size.export_memory_bytes)],
    ]
    if speed:
        for words, parent, export in (
            ("tokens", speed.parent.tokens_per_second, speed.export.tokens_per_second),
            ("characters", speed.parent.characters_per_second, speed.export.characters_per_second),
        ):
            rows.append(
                [f"{words} per second, vLLM", f"{parent:,.1f}", f"{export:,.1f}", f"{export / parent:.2f}"]
            )
    return table(["", "parent", "export", "export / parent"], rows)


def _mib(parent: int, export: int) -> list[str]:
    return [f"{parent / MIB:,.1f}", f"{export / MIB:,.1f}", f"{export / parent:.2f}"]


def _origin(fidelity: Fidelity) -> str:
    data = ", ".join(f"{name} {digest[:12]}" for name, digest in fidelity.data.items())
    libraries = ", ".join(f"{name} {version}" for name, version in fidelity.libraries.items())
    where = f"On {fidelity.machine}. {libraries}."
    return f"`{fidelity.command}`\n\nSeed {fidelity.seed}. Data (SHA-256): {data}. {where}"


def _pair(parent: float, export: float, digits: int) -> str:
    return f"{parent:.{digits}f} → {export:.{digits}f}"


def _signed(score: Score) -> str:
    return f"{score.export - score.parent:+.4f}"


def plots(losses: Mapping[Language, TokenLosses], kinds: NDArray[np.int8]) -> bytes:
    """Of each language, the share of tokens whose KL is above a value, and what each kind costs more; as PNG.

    `kinds`: of each token id, its place in TOKEN_KINDS.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4 * len(losses)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(losses), 2, squeeze=False)
    for (left, right), (language, found) in zip(rows, losses.items(), strict=True):
        title = language.capitalize()
        groups = {kind: found.of(kinds[found.ids] == number) for number, kind in enumerate(TOKEN_KINDS)}
        present = {kind: group for kind, group in groups.items() if len(group.ids)}
        for kind, group in present.items():
            _plot_above(left, group.kl, kind)
        left.set(title=f"{title}: how far apart", xlabel="KL, nats", ylabel="share of tokens above")
        left.set(xscale="log", yscale="log")
        left.legend()
        more = [(group.export - group.parent).mean() / NATS_PER_BIT for group in present.values()]
        right.bar(list(present), more)
        right.axhline(0, color="black", linewidth=0.8)
        right.set(title=f"{title}: what it costs", ylabel="bits per token more than the parent")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def _plot_above(axes: Any, kl: Numbers, label: str) -> None:
    """A curve of at most NUM_POINTS points, which lie closest at the greatest values."""
    ordered = np.sort(np.maximum(kl, SMALLEST_KL))[::-1]
    ranks = np.unique(np.geomspace(1, len(ordered), NUM_POINTS).astype(np.int64))
    axes.plot(ordered[ranks - 1], ranks / len(ordered), label=label)
