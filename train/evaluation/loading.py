"""Loads a checkpoint or an export the way its users do, if there is room for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from malmoi.checkpoint import Checkpoint
from malmoi.errors import CheckpointError
from malmoi.memory import GIB, available_memory_bytes
from train.loop import NO_MEMORY
from train.loss import LOGITS_AT_ONCE

LOGIT_BYTES: Final = 12
"""Of each score that is looked at: as the model gives it, in fp32, and as a logarithm of a probability."""


def check_memory(checkpoint: Checkpoint) -> None:
    """Raises: CheckpointError if the weights and a batch's scores do not fit into what is free."""
    needed = checkpoint.weight_bytes + LOGITS_AT_ONCE * LOGIT_BYTES
    is_gpu = torch.cuda.is_available()
    available = int(torch.cuda.mem_get_info()[0]) if is_gpu else available_memory_bytes()
    if needed > available:
        raise CheckpointError(
            checkpoint.path,
            expected=f"{needed / GIB:.1f} GiB of free memory (weights {checkpoint.weight_bytes / GIB:.1f})",
            found=f"{available / GIB:.1f} GiB{' on the GPU' if is_gpu else ''}",
            next_step="free some, evaluate a quantized export, or serve it elsewhere and name its address",
        )


def load_model(directory: Path) -> PreTrainedModel:
    """`AutoModelForCausalLM.from_pretrained(DIR)`, on the GPU where there is one.

    Raises: CheckpointError if it cannot be loaded, or not all of it comes from the files: transformers would
    fill the rest with random numbers.
    """
    disable_progress_bar()  # of loading; what is asked then has its own
    device = "auto" if torch.cuda.is_available() else "cpu"
    try:
        with redirect_stdout(sys.stderr):  # GPTQModel greets
            model, loading = AutoModelForCausalLM.from_pretrained(
                directory, local_files_only=True, device_map=device, output_loading_info=True
            )
    except (
        ImportError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        AssertionError,
        OSError,
    ) as error:
        raise _unloadable(directory, f"{type(error).__name__}: {error}") from error
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        if loading[what]:
            number = f"{len(loading[what])} {what.replace('_', ' ')}"
            raise _unloadable(directory, f"{number}, among them {min(map(str, loading[what]))}")
    found: PreTrainedModel = model.eval()
    return found


@contextmanager
def memory_told(where: str) -> Iterator[None]:
    """Raises: CheckpointError where memory runs out all the same."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error)):
            raise
        raise CheckpointError(
            where,
            expected="memory for the model and a batch",
            found=str(error) or type(error).__name__,
            next_step="lower --batch-size, or free some; the same command goes on where it was",
        ) from error


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """`AutoTokenizer.from_pretrained(DIR)`. Raises: CheckpointError if there is none."""
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            directory,
            expected="a tokenizer that transformers loads",
            found=f"{type(error).__name__}: {error}",
            next_step="name the directory of the checkpoint it belongs to",
        ) from error
    return found


def _unloadable(directory: Path, found: str) -> CheckpointError:
    return CheckpointError(
        directory,
        expected="a checkpoint that transformers loads whole",
        found=found,
        next_step="make it again; `pip install malmoi[quant]` has the libraries that load exports",
    )
