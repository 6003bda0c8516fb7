"""Reads what a safetensors file says of itself, without reading a single weight.

Source: the safetensors format: 8 bytes little-endian header length, a JSON header, then the tensors.
"""

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from malmoi.errors import CheckpointError

# The format's own limit; a longer one is a file that is not safetensors.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """What a header says of one tensor."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    offset: int
    """Of its first byte in the file."""


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Each tensor's header by name.

    Raises: CheckpointError if the file is not safetensors, a tensor's bytes are not those of its shape and
    dtype, or the file is shorter or longer than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER_BYTES + 1
        if length > min(MAX_HEADER_BYTES, size):
            raise _not_safetensors(path, f"{size} bytes that do not begin with a header length")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = {name: _tensor_header(path, name, entry, 8 + length) for name, entry in header.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _not_safetensors(path, "a header that is not its JSON") from None
    if end != size:
        raise CheckpointError(
            path,
            expected=f"{end} bytes, as its header says",
            found=f"{size} bytes",
            next_step="copy or download the file again",
        )
    return tensors


def _tensor_header(path: Path, name: str, entry: dict[str, Any], start: int) -> TensorHeader:
    begin, end = (int(offset) for offset in entry["data_offsets"])
    shape = tuple(map(int, entry["shape"]))
    tensor = TensorHeader(path.name, str(entry["dtype"]), shape, end - begin, start + begin)
    num_bits = math.prod(tensor.shape) * _bits(tensor.dtype)
    if num_bits != 8 * tensor.num_bytes:
        raise CheckpointError(
            path,
            expected=f"{num_bits // 8} bytes of {name}, {tensor.dtype} of shape {list(tensor.shape)}",
            found=f"{tensor.num_bytes} bytes",
            next_step="copy or download the file again",
        )
    return tensor


def _bits(dtype: str) -> int:
    """Of one element; but for BOOL, a name says it: BF16, F8_E4M3."""
    if dtype == "BOOL":
        return 8
    found = re.match(r"[A-Z]+(\d+)", dtype)
    if found is None:
        raise ValueError(dtype)
    return int(found[1])


def _not_safetensors(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        path, expected="a safetensors file", found=found, next_step="copy or download the file again"
    )
