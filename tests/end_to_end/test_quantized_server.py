"""Exports are served by the real engine: the same tokens as in transformers, and the parent's right answers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.served_exports.agreement import agreement, served_answers
from malmoi.checkpoint import open_checkpoint
from tests.support.quantized import export_bnb, export_gptq

CLEAR = 0.02
"""Between two logits: closer, either may come out on top in another order of summation."""
MOST_LOST = 0.02
MOST_LOST_OF_FP4 = 0.05
"""Its sixteen values are no match for weights; the preset is there for what others have published."""
MAX_TOKENS = 64
AMX = torch.cpu._is_amx_tile_supported()
"""With it vLLM makes whole numbers of 8 bits of what goes into GPTQ's layers, unless it is told not to."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "export", "most_lost", "activations"),
    [
        pytest.param("bitsandbytes", export_bnb, MOST_LOST, "1", id="bnb"),
        pytest.param(
            *("bitsandbytes", partial(export_bnb, recipe="erkhov-compat"), MOST_LOST_OF_FP4, "1"),
            id="bnb-erkhov-compat",
        ),
        pytest.param(
            *("gptq", export_gptq, MOST_LOST, "1"),
            id="gptq",
            marks=pytest.mark.skipif(not AMX, reason="no AMX: activations are never quantized here"),
        ),
        pytest.param("gptq", export_gptq, MOST_LOST, "0", id="gptq-whole-activations"),
    ],
)
def test_an_export_of_the_demo_is_served_as_it_is(
    whole_demo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    export: Callable[[Path, Path], Path],
    most_lost: float,
    activations: str,
) -> None:
    monkeypatch.setenv("VLLM_CPU_INT4_W4A8", activations)
    exported = export(whole_demo, tmp_path / method)
    assert open_checkpoint(exported).quantization == method
    lines = (whole_demo.with_name(f"{whole_demo.name}.work") / "held_out.jsonl").read_text()
    dialogues = [json.loads(line)["messages"] for line in lines.splitlines()]
    answers = served_answers(exported, [turns[:-1] for turns in dialogues], MAX_TOKENS)
    found = agreement(exported, answers)
    assert found.num_tokens > len(dialogues)
    assert found.beyond(CLEAR) == 0
    right = [answer.text == turns[-1]["content"] for answer, turns in zip(answers, dialogues, strict=True)]
    provenance = open_checkpoint(whole_demo).provenance
    assert provenance is not None
    assert sum(right) / len(right) >= provenance.origin.metrics["held_out_accuracy"] - most_lost
