"""Stages on a GPU: what is frozen stays as it is bit for bit, and what is learnt is what a CPU learns."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.training import CONTENDERS, measure
from benchmarks.stages.contenders import STAGES
from malmoi.checkpoint import open_checkpoint
from tests.support.checkpoints import create_grown_checkpoint
from tests.support.exports import write_jsonl
from tests.support.recipes import AFTER_EVERYTHING
from tests.train.pretraining.test_stages import TRAINED, changed
from train.demo.conversations import sentences

TOLERANCE = 0.01
"""Of a loss: a GPU adds bf16 products up in another order."""


def train(folder: Path, *, with_gpu: bool) -> list[Path]:
    """The base and every stage's checkpoint, made by the command in a process that sees the GPU, or none."""
    base = create_grown_checkpoint(folder / "base")
    text = write_jsonl(folder / "korean.jsonl", [{"text": sentence} for sentence in sentences(1500, 0)])
    held_out = write_jsonl(folder / "held_out.jsonl", [{"text": sentence} for sentence in sentences(200, 1)])
    command = [sys.executable, "-W", "ignore", "-m", "train", "pretrain", "--base", str(base)]
    options = [
        "--corpus",
        str(text),
        "--held-out",
        str(held_out),
        "--recipe",
        "tests.support.recipes:AFTER_EVERYTHING",
    ]
    environment = os.environ | ({} if with_gpu else {"CUDA_VISIBLE_DEVICES": ""})
    out = folder / "out"
    subprocess.run([*command, *options, "--out", str(out)], env=environment, check=True, capture_output=True)
    made = sorted(out.iterdir())
    assert len(made) == len(AFTER_EVERYTHING.stages)
    return [base, *made]


def losses(checkpoints: list[Path]) -> list[float]:
    """What each stage came to on text that it was not shown, in bits per byte of Korean."""
    records = [open_checkpoint(checkpoint).provenance for checkpoint in checkpoints[1:]]
    return [record.origin.metrics["korean_bits_per_byte"] for record in records if record is not None]


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return train(tmp_path_factory.mktemp("gpu"), with_gpu=True)


@pytest.mark.gpu("training")
def test_every_stage_trains_what_it_should_and_nothing_else(on_gpu: list[Path]) -> None:
    trained = [changed(before, after) for before, after in pairwise(on_gpu)]
    assert trained == [TRAINED[stage.name] for stage in AFTER_EVERYTHING.stages]


@pytest.mark.gpu("training")
def test_it_learns_what_a_cpu_learns(on_gpu: list[Path], tmp_path: Path) -> None:
    expected = losses(train(tmp_path, with_gpu=False))
    assert losses(on_gpu) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.gpu("training")
@pytest.mark.parametrize("stage", ["1 new input", "2 new output", "3 new input and output"])
def test_new_rows_take_less_memory_than_the_gradient_hook(stage: str) -> None:
    shape = SHAPES["1b"]
    peaks = {}
    for contender in CONTENDERS:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        peaks[contender] = measure(shape, "cuda", STAGES[stage], contender).peak_bytes
    assert peaks["ours"] < peaks["hook"]
