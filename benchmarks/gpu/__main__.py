"""python -m benchmarks.gpu: measures what this machine can, and writes RESULTS.md and results.json."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from benchmarks.gpu.skipping import PARTS, Device, Part, hardware, why_skipped
from benchmarks.machine import this_machine
from benchmarks.results import emptied, this_command, write_json
from malmoi.errors import reported_in_one_line

if TYPE_CHECKING:
    from benchmarks.gpu.exports import Made
    from benchmarks.gpu.serving import Served
    from benchmarks.gpu.training import Steps

WORK = Path("build/benchmarks/gpu")
PACKAGES = ("malmoi", "torch", "transformers", "gptqmodel", "bitsandbytes", "vllm")


def measure(
    *,
    device: Device = "cuda",
    shape: Literal["1b", "tiny"] = "1b",
    parts: tuple[Part, ...] = PARTS,
    out: Path = WORK,
) -> None:
    """Measure training stages, 4-bit exports and serving on a GPU; what this machine cannot run is skipped.

    Args:
        device: cpu runs the same code without a GPU, to see that it works.
        shape: the model's size; tiny takes minutes on a CPU.
        parts: what to measure; serving is of the exports, too, where they are made.
        out: directory for RESULTS.md, results.json, the checkpoints and logs.
    """
    skipped = {part: reason for part in parts if (reason := why_skipped(part, device))}
    for part, reason in skipped.items():
        print(f"{part}: skipped: {reason}", file=sys.stderr)
    wanted = [part for part in parts if part not in skipped]
    if not wanted:
        return
    from benchmarks.gpu import report
    from benchmarks.gpu.shapes import SHAPES, create

    command, machine = this_command("benchmarks.gpu"), this_machine(*PACKAGES)
    folder = emptied(out.absolute())
    record: dict[str, object] = {"command": command, "machine": asdict(machine), "skipped": skipped}
    steps = list(_steps(shape, device)) if "training" in wanted else []
    record |= {"training": [asdict(one) for one in steps]}
    write_json(folder, record)  # what comes next may be cut short
    parent = create(SHAPES[shape], folder / shape).path
    made = list(_exports(parent, folder)) if "exports" in wanted else []
    record |= {"exports": [asdict(one) for one in made]}
    write_json(folder, record)
    checkpoints = [parent, *(Path(one.directory) for one in made)] if "serving" in wanted else []
    served = list(_served(checkpoints, parent, device, folder))
    write_json(folder, record | {"serving": [asdict(one) for one in served]})
    heading = f"{machine.heading(command)}\n\n{hardware(device)}"
    skipped |= {part: "not asked for" for part in PARTS if part not in parts}
    (folder / "RESULTS.md").write_text(report.render(heading, SHAPES[shape], steps, made, served, skipped))
    print(out / "RESULTS.md")


def _steps(shape: str, device: Device) -> Iterator["Steps"]:
    """Each stage and contender in a process of its own, for the memory of the one before is not given back."""
    from benchmarks.gpu.training import Steps, contenders
    from benchmarks.stages.contenders import STAGES

    for stage in STAGES:
        for contender in contenders(STAGES[stage]):
            print(f"training: {stage}, {contender}", file=sys.stderr, flush=True)
            task = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "benchmarks.gpu.training",
                shape,
                device,
                stage,
                contender,
            ]
            done = subprocess.run(task, stdout=subprocess.PIPE, text=True, check=True)
            yield Steps(**json.loads(done.stdout.splitlines()[-1]))


def _exports(parent: Path, folder: Path) -> Iterator["Made"]:
    from benchmarks.gpu.exports import METHODS, make

    for method in METHODS:
        print(f"exports: {method}", file=sys.stderr, flush=True)
        yield make(parent, method, folder)


def _served(checkpoints: list[Path], tokenizer: Path, device: Device, folder: Path) -> Iterator["Served"]:
    from benchmarks.gpu import serving

    for checkpoint in checkpoints:
        print(f"serving: {checkpoint.name}", file=sys.stderr, flush=True)
        yield serving.measure(checkpoint, tokenizer, device, folder)


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.gpu")
