"""A contender in processes of its own: how long it takes, and the most memory that they hold together."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes

ROOT = Path(__file__).parents[2]
INTERVAL_S = 0.1
WORKERS = {"GPTQMODEL_CPU_WORKERS": "2"}
"""Without it GPTQModel's pool fails on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one export took."""

    contender: str
    seconds: float
    peak_bytes: int
    disk_bytes: int


def run(contender: str, arguments: Sequence[str], out: Path) -> Run:
    """Runs `python -m benchmarks.quantization.task CONTENDER ARGUMENTS OUT`, talking to a log beside `out`."""
    task = [sys.executable, "-W", "ignore", "-m", "benchmarks.quantization.task", contender]
    environment = os.environ | WORKERS | {"PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    with out.with_name(f"{out.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*task, *arguments, str(out)], stdout=log, stderr=log, env=environment, cwd=out.parent
        )
        with processes.MemoryRecorder(process.pid, INTERVAL_S) as memory:
            code = process.wait()
            seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"{contender} ended with {code}; see {out}.log")
    return Run(
        contender=contender,
        seconds=seconds,
        peak_bytes=memory.peak_bytes(),
        disk_bytes=sum(file.stat().st_size for file in out.iterdir() if file.is_file()),
    )
