"""Which quantized checkpoints vLLM 0.32 serves, known from their settings and tensor headers.

Source: vLLM 0.32, model_executor/layers/quantization: the type map and kernel checks of its gptq code; what of
it is of the platform was run on a CPU.
"""

from collections.abc import Mapping
from typing import Any, Final

from malmoi.checkpoint import Checkpoint

CPU_WIDTH_MULTIPLE: Final = 32
SERVED: Final = "4 bits, sym, desc_act=false, widths in 32s"
"""What is served of GPTQ everywhere."""


def why_not_served(checkpoint: Checkpoint, *, on_cpu: bool) -> str | None:
    """What vLLM would refuse in a checkpoint; None where it serves it."""
    if checkpoint.quantization != "gptq":
        return None
    reason = why_gptq_is_refused(checkpoint.config["quantization_config"], on_cpu=on_cpu)
    width = _odd_width(checkpoint) if on_cpu else None
    if reason is None and width is not None:
        return f"an input width of {width[1]} in {width[0]}"
    return reason


def why_gptq_is_refused(settings: Mapping[str, Any], *, on_cpu: bool) -> str | None:
    """What vLLM would refuse in a GPTQ `quantization_config`, before there is a checkpoint of it."""
    bits, sym = settings.get("bits"), settings.get("sym", True)
    group_size, desc_act = settings.get("group_size", 128), settings.get("desc_act", False)
    if not sym:
        return "sym=false"
    if bits not in ((4,) if on_cpu else (4, 8)):
        return f"bits={bits}"
    if desc_act and group_size != -1:
        return f"desc_act=true with group_size={group_size}"
    return None


def _odd_width(checkpoint: Checkpoint) -> tuple[str, int] | None:
    """The first packed layer whose input width the CPU kernel cannot take, and that width."""
    bits = int(checkpoint.config["quantization_config"].get("bits", 4))
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(".qweight"):
            width = tensor.shape[0] * (32 // bits)  # int32 words, each holding 32 / bits inputs
            if width % CPU_WIDTH_MULTIPLE:
                return name.removesuffix(".qweight"), width
    return None
