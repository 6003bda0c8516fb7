"""python -m benchmarks.stages: measures, and writes RESULTS.md and results.json."""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from benchmarks.machine import Machine, this_machine
from benchmarks.results import this_command, write_json
from benchmarks.stages.contenders import CONTENDERS, NUM_NEW, NUM_OLD, STAGES, can
from malmoi.errors import reported_in_one_line

WORK = Path("build/benchmarks/stages")
PACKAGES = ("malmoi", "torch", "transformers", "peft")
MIB = 1 << 20
EXPLANATION = f"""A Llama of 34.9 million random fp32 parameters, {NUM_OLD:,} old and {NUM_NEW:,} new tokens
({NUM_NEW / (NUM_OLD + NUM_NEW):.1%}), 8 rows of 128 tokens a step, fused AdamW with weight decay, gradients
clipped. ours: new rows as parameters of their own. hook: the code of EEVE's card (a gradient hook over the
whole table), in the same way for the other stages. peft: trainable_token_indices. Times are medians of 6 steps
in each process; a ratio is theirs / ours within one repeat, median (least-greatest): above 1 ours is faster."""


def measure(*, repeats: int = 2, out: Path = WORK) -> None:
    """Measure step time and memory of the seven stages.

    Args:
        repeats: processes of each contender in each stage, one after another in turn.
        out: directory for RESULTS.md and results.json.
    """
    command, machine = this_command("benchmarks.stages"), this_machine(*PACKAGES)
    out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for name, stage in STAGES.items():
            for contender in CONTENDERS:
                if can(contender, stage):
                    print(f"repeat {repeat + 1}, stage {name}, {contender}", file=sys.stderr, flush=True)
                    found.append(_run(contender, name))
        write_json(out, {"command": command, "machine": asdict(machine), "runs": found})
    (out / "RESULTS.md").write_text(render(found, machine, command))
    print(out / "RESULTS.md")


def _run(contender: str, stage: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.stages.task", contender, stage]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def render(runs: list[dict[str, Any]], machine: Machine, command: str) -> str:
    """RESULTS.md; every verdict is computed."""
    by_place = defaultdict(list)
    for run in runs:
        by_place[run["stage"], run["contender"]].append(run)
    rows = []
    for stage in STAGES:
        ours = by_place[stage, "ours"]
        for contender in CONTENDERS:
            theirs = by_place.get((stage, contender))
            if theirs is None:
                continue
            step = median(second for run in theirs for second in run["seconds"])
            ratios = [
                median(other["seconds"]) / median(own["seconds"])
                for own, other in zip(ours, theirs, strict=True)
            ]
            ratio = "" if contender == "ours" else f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            one = theirs[0]
            memory = median(run["peak_bytes"] for run in theirs)
            rows.append(
                f"| {stage} | {contender} | {step:.3f} | {ratio} | {one['gradient_bytes'] / MIB:.1f} | "
                f"{one['optimizer_bytes'] / MIB:.1f} | {memory / MIB:,.0f} |"
            )
    lines = [
        "# The seven stages: step time and memory",
        machine.heading(command),
        EXPLANATION,
        "\n".join(
            [
                "| stage | | step, s | theirs / ours | gradients, MiB | optimizer, MiB | peak memory, MiB |",
                "| --- | --- | --- | --- | --- | --- | --- |",
                *rows,
            ]
        ),
        _losses(by_place),
    ]
    return "\n\n".join(lines) + "\n"


def _losses(by_place: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """How far the contenders' losses are from ours: they are to compute the same."""
    furthest = dict.fromkeys(CONTENDERS, 0.0)
    for (stage, contender), runs in by_place.items():
        pairs = zip(by_place[stage, "ours"][0]["losses"], runs[0]["losses"], strict=True)
        furthest[contender] = max(furthest[contender], *(abs(one - other) for one, other in pairs))
    return (
        f"Over the eight steps PEFT's losses differ from ours by at most {furthest['peft']:.1e}, the hook's, "
        f"whose frozen rows weight decay moves, by at most {furthest['hook']:.1e}."
    )


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.stages")
