"""Loads a checkpoint the way its users do, and tells how much memory that takes."""

import gc
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Final

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from malmoi.checkpoint import open_checkpoint
from malmoi.errors import CheckpointError
from quant import apart

BACKENDS: Final = {"gptq": "gptqmodel", "bitsandbytes": "bitsandbytes"}
"""The library that transformers loads each method with."""


def load_model(directory: Path) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained(DIR)`, on the GPU where there is one.

    Raises: CheckpointError if it cannot be loaded, or not all of it comes from the files: transformers would
    fill the rest with random numbers.
    """
    import torch

    if not sys.stderr.isatty():
        disable_progress_bar()
    device = "auto" if torch.cuda.is_available() else "cpu"
    try:
        with redirect_stdout(sys.stderr):  # GPTQModel greets
            model, loading = AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, device_map=device, output_loading_info=True
            )
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise _unloadable(directory, f"{type(error).__name__}: {error}") from error
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        if loading[what]:
            number = f"{len(loading[what])} {what.replace('_', ' ')}"
            raise _unloadable(directory, f"{number}, among them {min(map(str, loading[what]))}")
    found: PreTrainedModel = model.eval()
    return found


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """`AutoTokenizer.from_pretrained(DIR)`, padding with eos where it has no token for it."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def memory_bytes(directory: Path) -> int:
    """Memory that the model takes once it is loaded and has predicted a token, in a process of its own.

    On a GPU what is allocated there, else the growth of resident memory since the libraries were imported, all
    weights having been read: of a file that is mapped, pages that nobody has asked for are not there.

    Raises: CheckpointError if it cannot be loaded.
    """
    try:
        return int(apart.call("quant.loading:own_memory_bytes", directory.absolute(), environment={}))
    except apart.EndedError as error:
        raise _unloadable(directory, f"a process that did not live to tell: {error}") from error


def own_memory_bytes(directory: Path) -> int:
    """The same of this process, which is to do nothing else."""
    import psutil
    import torch

    method = open_checkpoint(directory).quantization
    if method in BACKENDS:
        with redirect_stdout(sys.stderr):
            import_module(BACKENDS[method])
    process = psutil.Process()
    gc.collect()
    before = int(process.memory_info().rss)
    model = load_model(directory)
    with torch.inference_mode():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=False)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.sum()
    gc.collect()
    if model.device.type == "cuda":
        return int(torch.cuda.memory_allocated())
    return int(process.memory_info().rss) - before


def _unloadable(directory: Path, found: str) -> CheckpointError:
    return CheckpointError(
        directory,
        expected="a checkpoint that transformers loads whole",
        found=found,
        next_step="make it again; `pip install malmoi[quant]` has the libraries that load exports",
    )
