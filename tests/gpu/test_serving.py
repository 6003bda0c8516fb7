"""vLLM's CUDA build behind malmoi-serve: bf16, GPTQ and nf4, token by token what transformers says on a CPU."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.served_exports.agreement import agreement, served_answers
from tests.support.quantized import export_bnb, export_gptq

CLEAR = 0.25
"""Between two logits, which bf16 has in steps of 0.06 to 0.12 where they are largest."""
NUM_DIALOGUES, MAX_TOKENS = 64, 64
LEAST_RIGHT = 0.9


def copied(checkpoint: Path, out: Path) -> Path:
    return Path(shutil.copytree(checkpoint, out))


@pytest.mark.gpu("serving", "exports")
@pytest.mark.parametrize(
    "make",
    [pytest.param(copied, id="bf16"), pytest.param(export_gptq, id="gptq"), pytest.param(export_bnb, id="nf4")],
)
def test_the_demo_is_served_as_it_is(
    demo_checkpoint: Path, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    checkpoint = make(demo_checkpoint, tmp_path / "served")
    held_out = demo_checkpoint.with_name(f"{demo_checkpoint.name}.work") / "held_out.jsonl"
    lines = held_out.read_text(encoding="utf-8").splitlines()[:NUM_DIALOGUES]
    dialogues = [json.loads(line)["messages"] for line in lines]
    answers = served_answers(checkpoint, [turns[:-1] for turns in dialogues], MAX_TOKENS)
    found = agreement(checkpoint, answers)
    assert found.num_tokens > len(dialogues)
    assert found.beyond(CLEAR) == 0
    right = [answer.text == turns[-1]["content"] for answer, turns in zip(answers, dialogues, strict=True)]
    assert sum(right) / len(right) > LEAST_RIGHT
