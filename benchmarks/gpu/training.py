"""A stage's steps in a process of its own: python -m benchmarks.gpu.training SHAPE DEVICE STAGE CONTENDER."""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final, Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.gpu.shapes import SHAPES, Shape
from benchmarks.gpu.skipping import Device
from benchmarks.stages.contenders import STAGES
from train.pretraining.parts import set_up
from train.recipe import Rows, Stage

WARM_UP, STEPS = 3, 10
COMPUTED_IN: Final = torch.bfloat16
Contender = Literal["ours", "hook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What a contender's steps took."""

    stage: str
    contender: str
    seconds: tuple[float, ...]
    """Of each step after the first ones."""
    losses: tuple[float, ...]
    """Of all steps."""
    gradient_bytes: int
    optimizer_bytes: int
    peak_bytes: int
    """Of the GPU's memory; of the process's on a CPU."""


def ours(model: PreTrainedModel, stage: Stage, num_old: int) -> None:
    """New rows as parameters of their own."""
    set_up(model, stage, num_old, COMPUTED_IN)


def hook(model: PreTrainedModel, stage: Stage, num_old: int) -> None:
    """As EEVE's card does it: the whole table is trained, and the old rows' gradients are set to zero."""
    tables = [
        (stage.input_rows, model.get_input_embeddings()),
        (stage.output_rows, model.get_output_embeddings()),
    ]
    rows: list[Rows] = ["all" if which == "new" else which for which, _ in tables]
    set_up(model, replace(stage, input_rows=rows[0], output_rows=rows[1]), num_old, COMPUTED_IN)
    for which, table in tables:
        if which == "new":
            table.weight.register_hook(partial(_without_old_rows, num_old))


def _without_old_rows(num_old: int, gradient: torch.Tensor) -> torch.Tensor:
    """`gradient[:num_old] = 0` on a copy: autograd's own tensor must not be changed in place."""
    gradient = gradient.clone()  # (tokens, hidden)
    gradient[:num_old] = 0
    return gradient


CONTENDERS: Final[dict[Contender, Callable[[PreTrainedModel, Stage, int], None]]] = {"ours": ours, "hook": hook}


def contenders(stage: Stage) -> tuple[Contender, ...]:
    """The ways to train the stage; without new rows apart from old ones both are the same."""
    return ("ours", "hook") if "new" in (stage.input_rows, stage.output_rows) else ("ours",)


def measure(shape: Shape, device: Device, stage: Stage, contender: Contender) -> Steps:
    """Steps of a random model as malmoi-train has it: computed in bf16, what is trained in fp32.

    AdamW is fused, gradients are clipped.
    """
    torch.manual_seed(0)
    vocab_size = shape.num_old + shape.num_new
    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **shape.architecture))
        model.to(torch.float32 if stage.body == "full" else COMPUTED_IN)
        ids = torch.randint(0, vocab_size, (shape.rows, shape.row_tokens))  # (rows, tokens)
    CONTENDERS[contender](model, stage, shape.num_old)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1, fused=True)
    seconds, losses, gradient_bytes = [], [], 0
    for _ in range(WARM_UP + STEPS):
        _wait(device)
        start = time.perf_counter()
        with torch.autocast(device, COMPUTED_IN):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        gradient_bytes = sum(one.grad.nbytes for one in trained if one.grad is not None)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    state = [value for entry in optimizer.state.values() for value in entry.values() if torch.is_tensor(value)]
    return Steps(
        stage=stage.name,
        contender=contender,
        seconds=tuple(seconds[WARM_UP:]),
        losses=tuple(losses),
        gradient_bytes=gradient_bytes,
        optimizer_bytes=sum(value.nbytes for value in state),
        peak_bytes=_peak_bytes(device),
    )


def _wait(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak_bytes(device: Device) -> int:
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    shape_name, on, stage_name, who = sys.argv[1:]
    measured = measure(SHAPES[shape_name], on, STAGES[stage_name], who)  # type: ignore[arg-type]
    print(json.dumps(asdict(measured)))
