"""RESULTS.md from what was measured."""

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.gpu.exports import Made
from benchmarks.gpu.serving import Served
from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.skipping import Part
from benchmarks.gpu.training import STEPS, Steps
from benchmarks.machine import GIB
from benchmarks.serving.load import INPUT_TOKENS, OUTPUT_TOKENS

TITLES: Mapping[Part, str] = {
    "training": "Training stages against the gradient hook",
    "exports": "4-bit exports",
    "serving": "Serving",
}


def render(
    heading: str,
    shape: Shape,
    steps: Sequence[Steps],
    made: Sequence[Made],
    served: Sequence[Served],
    skipped: Mapping[Part, str],
) -> str:
    """The whole page; a part that was skipped says why."""
    tables = {"training": _training(steps, shape), "exports": _exports(made), "serving": _serving(served)}
    parts = [
        f"## {title}\n\n" + (f"Skipped: {skipped[part]}." if part in skipped else tables[part])
        for part, title in TITLES.items()
    ]
    return "\n\n".join(["# On a GPU", heading, _of_model(shape), *parts]) + "\n"


def _of_model(shape: Shape) -> str:
    return (
        f"A Llama of random weights: {shape.num_layers} layers of {shape.hidden_size}, "
        f"{shape.num_old:,} old and {shape.num_new:,} new tokens."
    )


def _training(steps: Sequence[Steps], shape: Shape) -> str:
    rows = []
    for one in steps:
        own = next(other for other in steps if (other.stage, other.contender) == (one.stage, "ours"))
        ratio = "" if one is own else f"{median(one.seconds) / median(own.seconds):.2f}"
        rows.append(
            [
                *(one.stage, one.contender, f"{median(one.seconds) * 1000:.1f}", ratio),
                *(_gib(one.gradient_bytes), _gib(one.optimizer_bytes), _gib(one.peak_bytes)),
            ]
        )
    head = ["stage", "", "step, ms", "theirs / ours", "gradients, GiB", "optimizer, GiB", "peak memory, GiB"]
    return (
        f"{shape.rows} rows of {shape.row_tokens} tokens a step, computed in bf16, trained in fp32 by fused "
        f"AdamW. Medians of {STEPS} steps, a process for each. ours: new rows as parameters of their own; "
        "hook: the code of EEVE's card, a gradient hook over the whole table.\n\n"
    ) + _table(head, rows)


def _exports(made: Sequence[Made]) -> str:
    rows = [
        [
            *(one.method, f"{one.seconds:.0f}", _gib(one.peak_gpu_bytes), _gib(one.peak_bytes)),
            f"{_gib(one.parent_bytes)} → {_gib(one.disk_bytes)}",
        ]
        for one in made
    ]
    return _table(["method", "s", "GPU memory, GiB", "memory, GiB", "weights, GiB"], rows)


def _serving(served: Sequence[Served]) -> str:
    rows = [
        [
            *(one.checkpoint, f"{one.ready_s:.0f}", str(load.streams), f"{load.tokens_per_s:,.0f}"),
            *(f"{load.ttft_p50_ms:.1f}", f"{load.itl_p50_ms:.2f}", f"{load.itl_p99_ms:.2f}"),
        ]
        for one in served
        for load in one.loads
    ]
    head = ["checkpoint", "ready, s", "streams", "tokens/s", "TTFT p50, ms", "ITL p50, ms", "ITL p99, ms"]
    return f"Chats of {INPUT_TOKENS} random tokens in and {OUTPUT_TOKENS} out, streamed.\n\n" + _table(
        head, rows
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
