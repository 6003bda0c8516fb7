"""The 4-bit exports of the shape, as `malmoi-quant export` makes them, and what they took."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.gpu.shapes import sentences
from quant import apart
from quant.calibration import CalibrationSource
from quant.export import export
from quant.recipe import BNB, GPTQ

Method = Literal["gptq", "nf4"]
METHODS: Final[tuple[Method, ...]] = ("gptq", "nf4")
CALIBRATION_SENTENCES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One export."""

    method: Method
    directory: str
    seconds: float
    peak_bytes: int
    """Of the process's memory."""
    peak_gpu_bytes: int
    disk_bytes: int
    parent_bytes: int


def make(parent: Path, method: Method, folder: Path) -> Made:
    """The export of `parent`, in `folder`, by a process of its own, whose memory is the export's alone."""
    made: Made = apart.call(f"{__name__}:make_here", parent, method, folder, environment={})
    return made


def make_here(parent: Path, method: Method, folder: Path) -> Made:
    """GPTQ is shown invented Hangul."""
    recipe = GPTQ["release"] if method == "gptq" else BNB["release"]
    shown = CalibrationSource(korean=(str(_text(folder)),)) if method == "gptq" else None
    done = export(parent, folder / f"{parent.name}-{method}", recipe=recipe, calibration=shown)
    return Made(
        method=method,
        directory=str(done.directory),
        seconds=done.seconds,
        peak_bytes=done.peak.num_bytes,
        peak_gpu_bytes=done.peak.num_gpu_bytes,
        disk_bytes=done.num_bytes,
        parent_bytes=done.parent_bytes,
    )


def _text(folder: Path) -> Path:
    file = folder / "calibration.jsonl"
    lines = (
        json.dumps({"text": sentence}, ensure_ascii=False) for sentence in sentences(CALIBRATION_SENTENCES)
    )
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
