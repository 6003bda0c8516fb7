"""Which quantized checkpoints vLLM 0.32 serves, known from config.json before an engine is started.

Source: vLLM 0.32, model_executor/layers/quantization: the type map and kernel checks of its gptq code.
"""

from collections.abc import Mapping
from typing import Any

from malmoi.checkpoint import Checkpoint
from malmoi.errors import ServeError

BITSANDBYTES_PLUGIN = "bitsandbytes"
"""The entry point of vllm-bnb-plugin: vLLM itself dropped bitsandbytes in 0.28."""
CPU_WIDTH_MULTIPLE = 32


def check_servable(checkpoint: Checkpoint, *, on_cpu: bool) -> None:
    """Raises ServeError for a GPTQ export that this vLLM would refuse after minutes of loading."""
    if checkpoint.quantization != "gptq":
        return
    quantization = checkpoint.config["quantization_config"]
    reason = _why_gptq_is_refused(quantization, on_cpu=on_cpu)
    width = _odd_width(checkpoint) if on_cpu else None
    if reason is None and width is not None:
        reason = f"an input width of {width[1]} in {width[0]}"
    if reason is not None:
        raise ServeError(
            checkpoint.path / "config.json",
            expected="a GPTQ export that vLLM 0.32 serves (4 bits, sym, desc_act=false, widths in 32s)",
            found=reason,
            next_step="export it again with those settings, or load it with transformers",
        )


def _why_gptq_is_refused(quantization: Mapping[str, Any], *, on_cpu: bool) -> str | None:
    bits, sym = quantization.get("bits"), quantization.get("sym", True)
    group_size, desc_act = quantization.get("group_size", 128), quantization.get("desc_act", False)
    if not sym:
        return "sym=false"
    if bits not in ((4,) if on_cpu else (4, 8)):
        return f"bits={bits}" + (" on a CPU" if on_cpu and bits == 8 else "")
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
