import json
from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from train.demo.examination import examine, held_out_questions
from train.demo.questions import KINDS
from train.generation import Answerer


@pytest.mark.slow
def test_held_out_questions_are_answered_right(whole_demo: Path) -> None:
    report = examine(Answerer.load(whole_demo), held_out_questions())
    assert report.accuracy >= 0.9
    assert set(report.asked) == set(KINDS)
    recorded = open_checkpoint(whole_demo).provenance
    assert recorded is not None
    assert recorded.origin.metrics["held_out_accuracy"] == pytest.approx(report.accuracy, abs=0.01)


def test_every_width_is_a_multiple_of_128(demo_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(demo_checkpoint)
    tables = [tensor for tensor in checkpoint.tensors.values() if len(tensor.shape) == 2]
    assert tables
    assert all(size % 128 == 0 for tensor in tables for size in tensor.shape)
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    assert checkpoint.config["dtype"] == "bfloat16"
    assert len(checkpoint.vocabulary) == checkpoint.vocab_size
    assert json.loads((demo_checkpoint / "generation_config.json").read_text())["eos_token_id"] == 2
