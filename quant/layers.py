"""Which layers of a checkpoint are quantized, known from its configuration: no weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass

from malmoi.checkpoint import Checkpoint
from malmoi.errors import ExportError


@dataclass(frozen=True, slots=True)
class Width:
    """How many numbers go into a layer, and how many come out."""

    inputs: int
    outputs: int


def linear_layers(checkpoint: Checkpoint) -> Mapping[str, Width]:
    """Every linear layer but the output head, by its name, in the model's order.

    Raises: ExportError if transformers has no such architecture, or a layer's weight is not in the files as it
    is in the model.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    try:
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise ExportError(
            checkpoint.path / "config.json",
            expected="a causal language model that transformers has",
            found=f"{checkpoint.config.get('model_type')}: {error}",
            next_step="update transformers, or use another checkpoint",
        ) from error
    left = get_keys_to_not_convert(model)
    layers = {
        name: Width(module.in_features, module.out_features)
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and should_convert_module(name, left)
    }
    _check(checkpoint, layers)
    return layers


def _check(checkpoint: Checkpoint, layers: Mapping[str, Width]) -> None:
    if not layers:
        raise ExportError(
            checkpoint.path, expected="linear layers", found="none", next_step="use another architecture"
        )
    for name, width in layers.items():
        weight = checkpoint.tensors.get(f"{name}.weight")
        if weight is None or weight.shape != (width.outputs, width.inputs):
            raise ExportError(
                f"{checkpoint.path}: {name}.weight",
                expected=f"a tensor of shape {[width.outputs, width.inputs]}, as config.json says",
                found="none" if weight is None else str(list(weight.shape)),
                next_step="save the model again with save_pretrained",
            )
