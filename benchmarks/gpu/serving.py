"""malmoi-serve on one checkpoint after another, each under the same loads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.gpu.skipping import Device
from benchmarks.serving import load
from benchmarks.serving.load import Load
from benchmarks.serving.servers import BIN, Contender, running

NUM_REQUESTS: Final[dict[Device, dict[int, int]]] = {
    "cuda": {1: 32, 8: 128, 32: 512, 128: 1024},
    "cpu": {1: 4, 4: 8},
}
"""Requests of each load, by streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A checkpoint's loads."""

    checkpoint: str
    ready_s: float
    loads: tuple[Load, ...]


def measure(checkpoint: Path, tokenizer: Path, device: Device, raw: Path) -> Served:
    """Starts the server, applies the loads, and ends it; logs go to `raw`.

    Raises: ServeError if it does not start, or a request fails.
    """
    name = checkpoint.name
    contender = Contender(
        name="malmoi",
        command=(str(BIN / "malmoi-serve"), str(checkpoint), *_options(device)),
        environment={"HF_HUB_OFFLINE": "1", "VLLM_CACHE_ROOT": str(raw / "cache")},
        model=name,
    )
    with running(contender, raw / f"{name}.log") as server:
        loads = [
            load.apply(server, contender, tokenizer, streams, count, raw / f"{name}-{streams}.json")
            for streams, count in NUM_REQUESTS[device].items()
        ]
        return Served(checkpoint=name, ready_s=server.ready_s, loads=tuple(loads))


def _options(device: Device) -> Sequence[str]:
    return ("--short-lived",) if device == "cpu" else ()
