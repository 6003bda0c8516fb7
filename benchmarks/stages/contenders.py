"""Three ways to train a stage of the same model; each leaves its parameters with requires_grad."""

from collections.abc import Callable
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from train.pretraining.parts import set_up
from train.recipe import Stage

NUM_OLD, NUM_NEW = 16_000, 4_480
"""In EEVE's proportion: 32,000 and 8,960."""
STAGES: Final[dict[str, Stage]] = {
    stage.name: stage
    for stage in (
        Stage(name="1 new input", input_rows="new", tokens=1, learning_rate=1e-3),
        Stage(name="2 new output", output_rows="new", tokens=1, learning_rate=1e-3),
        Stage(name="3 new input and output", input_rows="new", output_rows="new", tokens=1, learning_rate=1e-3),
        Stage(name="4 all output", output_rows="all", tokens=1, learning_rate=1e-3),
        Stage(
            name="5 new input and all output", input_rows="new", output_rows="all", tokens=1, learning_rate=1e-3
        ),
        Stage(
            name="6 everything", input_rows="all", output_rows="all", body="full", tokens=1, learning_rate=1e-3
        ),
        Stage(name="7 body", body="full", tokens=1, learning_rate=1e-3),
    )
}


def model() -> PreTrainedModel:
    """A Llama of 34.9 million random fp32 parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=NUM_OLD + NUM_NEW,
        hidden_size=448,
        intermediate_size=1152,
        num_hidden_layers=7,
        num_attention_heads=7,
        num_key_value_heads=7,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def ours(stage: Stage) -> PreTrainedModel:
    """New rows as parameters of their own."""
    made = model()
    set_up(made, stage, NUM_OLD, torch.float32)
    return made


def hook(stage: Stage) -> PreTrainedModel:
    """The code of EEVE's card, which is of stage 5, in the same way for the others: gradients set to zero."""
    made = model()
    made.requires_grad_(stage.body == "full")
    for which, table in (
        (stage.input_rows, made.get_input_embeddings().weight),
        (stage.output_rows, made.get_output_embeddings().weight),
    ):
        table.requires_grad_(which != "none")
        if which == "new":
            table.register_hook(_without_old_rows)
    return made


def _without_old_rows(grad: torch.Tensor) -> torch.Tensor:
    """`grad[:n] = 0`, as published, on a copy: autograd's own tensor must not be changed in place."""
    grad = grad.clone()
    grad[:NUM_OLD] = 0
    return grad


def peft(stage: Stage) -> PreTrainedModel:
    """PEFT's trainable_token_indices; a table of which all rows are trained is made so without PEFT."""
    from peft import TrainableTokensConfig, get_peft_model

    made = model()
    rows = {"embed_tokens": stage.input_rows, "lm_head": stage.output_rows}
    new = list(range(NUM_OLD, NUM_OLD + NUM_NEW))
    targets = [name for name, which in rows.items() if which == "new"]
    found: Any = get_peft_model(made, TrainableTokensConfig(target_modules=targets, token_indices=new))
    if stage.output_rows == "all":
        made.get_output_embeddings().requires_grad_(True)
    return found


CONTENDERS: Final[dict[str, Callable[[Stage], PreTrainedModel]]] = {"ours": ours, "hook": hook, "peft": peft}


def can(contender: str, stage: Stage) -> bool:
    """Whether the contender has a way of its own to train the stage: PEFT has where only new rows are."""
    return contender != "peft" or "new" in (stage.input_rows, stage.output_rows)
