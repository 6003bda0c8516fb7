"""benchmarks.gpu at a size for a CPU: the same code, but for the device."""

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import report
from benchmarks.gpu.exports import Made
from benchmarks.gpu.serving import Served
from benchmarks.gpu.shapes import SHAPES, create
from benchmarks.gpu.skipping import PARTS, why_skipped
from benchmarks.gpu.training import CONTENDERS, STEPS, Steps, measure
from benchmarks.serving.load import Load
from benchmarks.stages.contenders import STAGES

TINY = SHAPES["tiny"]
NEW_ROWS = "3 new input and output"


@pytest.fixture(scope="module")
def steps() -> dict[str, Steps]:
    return {name: measure(TINY, "cpu", STAGES[NEW_ROWS], name) for name in CONTENDERS}


def test_both_ways_learn_the_same(steps: dict[str, Steps]) -> None:
    """But for the old rows, which weight decay moves under the hook."""
    ours, hook = steps["ours"], steps["hook"]
    assert len(ours.seconds) == STEPS
    assert ours.losses[0] == hook.losses[0]
    assert ours.losses == pytest.approx(hook.losses, rel=0.01)
    assert ours.losses[-1] < ours.losses[0]


def test_only_new_rows_have_gradients_and_optimizer_state(steps: dict[str, Steps]) -> None:
    new_rows_bytes = 2 * TINY.num_new * TINY.hidden_size * 4
    assert steps["ours"].gradient_bytes == new_rows_bytes
    assert steps["hook"].gradient_bytes == new_rows_bytes * (TINY.num_old + TINY.num_new) // TINY.num_new
    assert steps["ours"].optimizer_bytes == 2 * new_rows_bytes + 2 * 4  # two moments; a counter for each table


def test_checkpoint_has_the_vocabulary_of_the_shape(tmp_path: Path) -> None:
    found = create(TINY, tmp_path / "tiny")
    assert found.config["vocab_size"] == TINY.num_old + TINY.num_new
    assert found.template is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_part_says_why_it_is_skipped() -> None:
    for part in PARTS:
        assert "GPU" in (why_skipped(part, "cuda") or "")
        assert why_skipped(part, "cpu") is None


def test_results_name_hardware_ratios_and_what_was_skipped(steps: dict[str, Steps]) -> None:
    made = Made(
        method="gptq",
        directory="d",
        seconds=61.0,
        peak_bytes=2 << 30,
        peak_gpu_bytes=1 << 30,
        disk_bytes=1 << 29,
        parent_bytes=2 << 30,
    )
    load = Load(
        streams=8,
        output_tokens=512,
        tokens_per_s=1234.0,
        characters_per_s=1000.0,
        ttft_p99_ms=9.0,
        ttft_p50_ms=20.0,
        itl_p50_ms=5.0,
        itl_p99_ms=9.0,
        api_cpu_s=1.0,
        engine_cpu_s=1.0,
    )
    served = Served(checkpoint="1b-gptq", ready_s=33.3, loads=(load,))
    text = report.render("NVIDIA H200", TINY, list(steps.values()), [made], [served], {})
    assert "NVIDIA H200" in text
    assert "| gptq | 61 | 1.00 | 2.00 | 2.00 → 0.50 |" in text
    assert "| 1b-gptq | 33 | 8 | 1,234 | 20.0 | 5.00 | 9.00 |" in text
    assert f"| {NEW_ROWS} | hook |" in text
    skipped = report.render("", TINY, [], [], [], dict.fromkeys(PARTS, "no GPU"))
    assert skipped.count("Skipped: no GPU.") == len(PARTS)
