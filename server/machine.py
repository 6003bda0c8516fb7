"""What this machine is, and the engine settings that make the default the fast one on it.

What the CPU settings bring is measured by benchmarks/serving.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from malmoi.checkpoint import Checkpoint
from malmoi.errors import ServeError
from malmoi.memory import GIB

KV_BLOCK_TOKENS = 128
"""vLLM's KV cache block on a CPU, in tokens."""
FULL_SEQUENCES = 32
"""Sequences of full length the KV cache is sized for where memory allows."""
PROCESSES_BYTES = int(2.5 * GIB)
"""Resident memory of the API, engine and worker processes besides weights and KV cache."""
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES = 240 << 20
"""What vLLM asks to be free there for a ring by which engine and worker talk; one GPU has no worker."""
TCMALLOC_PATHS = ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", "/usr/lib64/libtcmalloc_minimal.so.4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One choice made for the user: an environment variable or an engine option, its value, and why."""

    name: str
    value: str
    why: str


def why_eager(*, short_lived: bool) -> str | None:
    """The reason to run the model as it is written; None where it is worth compiling."""
    if short_lived:
        return "started to live short: it starts sooner and serves slower"
    compiler = os.environ.get("CXX", "g++")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None or not header.exists():
        return (
            f"compiling takes {compiler} and Python.h, which are not both here; with them it would serve faster"
        )
    return None


def cpu_environment(environment: Mapping[str, str]) -> list[Setting]:
    """Environment variables for vLLM's CPU engine; what the user has set is left alone."""
    settings = [
        Setting(
            name="VLLM_CPU_NUM_OF_RESERVED_CPU", value="0", why="every core computes; vLLM would hold one back"
        ),
        Setting(
            name="VLLM_USE_AOT_COMPILE",
            value="0",
            why="vLLM 0.32's ahead-of-time cache is never read back: it would compile at every start",
        ),
        Setting(
            name="ONEDNN_PRIMITIVE_CACHE_CAPACITY",
            value="256",
            why="oneDNN keeps what it compiles for each number of tokens in a step: its 1024 grow for long",
        ),
    ]
    preload = _preloaded(environment)
    if preload:
        names = " and ".join(Path(path).name for path in preload.split(":"))
        settings.append(Setting(name="LD_PRELOAD", value=preload, why=f"the engine's threads run on {names}"))
    return [setting for setting in settings if setting.name == "LD_PRELOAD" or setting.name not in environment]


def _preloaded(environment: Mapping[str, str]) -> str:
    """LD_PRELOAD with Intel's OpenMP and, where installed, tcmalloc in front of what the user has there."""
    given = environment.get("LD_PRELOAD", "")
    libraries = [] if "omp" in given else [Path(sys.prefix, "lib", "libiomp5.so")]
    if "tcmalloc" not in given:
        libraries += [path for path in map(Path, TCMALLOC_PATHS) if path.exists()][:1]
    found = [str(path) for path in libraries if path.exists()]
    return ":".join([*found, given] if given else found)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> None:
    """Raises ServeError where the CPU engine's processes would not find room to talk."""
    if folder.is_dir() and (free := shutil.disk_usage(folder).free) < SHARED_MEMORY_BYTES:
        raise ServeError(
            folder,
            expected=f"{SHARED_MEMORY_BYTES >> 20} MiB free, through which the engine's processes talk",
            found=f"{free >> 20} MiB",
            next_step="free some; a container is given more by --shm-size 512m",
        )


def kv_bytes_per_token(checkpoint: Checkpoint) -> int:
    """Bytes of keys and values that one token occupies in all layers, at 16 bits each.

    Raises: ServeError where config.json does not say.
    """
    config = checkpoint.config
    heads = _number(checkpoint, "num_attention_heads", "n_head")
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_dim = int(config.get("head_dim") or _number(checkpoint, "hidden_size", "n_embd") // heads)
    return 2 * _number(checkpoint, "num_hidden_layers", "n_layer") * kv_heads * head_dim * 2


def _number(checkpoint: Checkpoint, *names: str) -> int:
    """What config.json has under one of `names`: Llama's, or GPT-2's."""
    for name in names:
        if checkpoint.config.get(name):
            return int(checkpoint.config[name])
    raise ServeError(
        checkpoint.path / "config.json",
        expected=" or ".join(names),
        found="neither",
        next_step="size the KV cache yourself: -- --kv-cache-memory-bytes N",
    )


def kv_cache_bytes(checkpoint: Checkpoint, *, max_model_len: int, available_bytes: int) -> int:
    """Bytes to give vLLM's KV cache on a CPU: many full sequences, but at most half of what memory is left.

    Raises: ServeError where not even one sequence of full length fits beside weights and processes.
    """
    blocks = -(-max_model_len // KV_BLOCK_TOKENS)
    one_sequence = blocks * KV_BLOCK_TOKENS * kv_bytes_per_token(checkpoint)
    left = available_bytes - checkpoint.weight_bytes - PROCESSES_BYTES
    if left < one_sequence:
        needed = checkpoint.weight_bytes + PROCESSES_BYTES + one_sequence
        raise ServeError(
            checkpoint.path,
            expected=f"{needed / GIB:.1f} GiB of free memory (weights {checkpoint.weight_bytes / GIB:.1f}, "
            f"KV cache for one sequence of {max_model_len} tokens {one_sequence / GIB:.1f}, "
            f"processes {PROCESSES_BYTES / GIB:.1f})",
            found=f"{available_bytes / GIB:.1f} GiB",
            next_step="free some memory, serve a quantized export, or shorten sequences: -- --max-model-len N",
        )
    return max(one_sequence, min(FULL_SEQUENCES * one_sequence, left // 2))


def apply(settings: list[Setting]) -> None:
    """Sets the environment variables for this process and those it starts."""
    os.environ.update({setting.name: setting.value for setting in settings})
