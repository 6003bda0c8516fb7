"""malmoi-quant export: a quantized copy of a checkpoint, there whole or not at all; the other is only read.

Nothing heavy is imported here: GPTQ works in a process of its own, and only one of the two is to hold torch.
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from malmoi.checkpoint import Checkpoint, open_checkpoint
from malmoi.errors import ExportError, OutputError
from malmoi.files import PARTIAL_SUFFIX, refuse_existing
from quant import apart
from quant.calibration import CalibrationSource, Coverage
from quant.recipe import Bnb, Gptq

FULL: Final = os.strerror(errno.ENOSPC)
FULL_BYTES: Final = 1 << 16
"""Less is no room for any layer: what there was to say of a full disk may not have found room, either."""
ADAPTER_FILE: Final = "adapter_config.json"
FOR_GPTQMODEL: Final = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"} | (
    {"GPTQMODEL_CPU_WORKERS": "2"} if (os.cpu_count() or 1) <= 2 else {}
)
"""Without a number its pool of threads does not start on one or two cores (GPTQModel 7.6.0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be exported, and how."""

    checkpoint: Path
    out: Path
    recipe: Bnb | Gptq
    calibration: CalibrationSource
    seed: int
    work: Path
    """For what GPTQ has not finished."""
    is_resumable: bool
    overwrite: bool

    @property
    def unfinished(self) -> Path:
        """The folder in `work` that is this export's own."""
        return self.work / f"{self.out.name}.unfinished"

    @property
    def identity(self) -> Path:
        """The file in `unfinished` that says what was asked for."""
        return self.unfinished / "identity"

    @property
    def log(self) -> Path:
        """All that GPTQModel says; removed if all goes well."""
        return self.work / f"{self.unfinished.name}.log"


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that was taken at a time."""

    num_bytes: int
    num_gpu_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export that was written."""

    directory: Path
    recipe: Bnb | Gptq
    """With the group size that it came to."""
    parent_bytes: int
    """Of the parent's weights on disk."""
    num_bytes: int
    seconds: float
    peak: Peak
    coverage: Coverage | None
    """Of new tokens, in the text for GPTQ."""

    def __str__(self) -> str:
        told = f"{self.directory}: {described(self.recipe)}; "
        told += f"weights {self.parent_bytes / 1e6:,.1f} -> {self.num_bytes / 1e6:,.1f} MB; "
        told += f"{self.seconds:,.0f} s, peak memory {self.peak.num_bytes / 1e9:.1f} GB"
        gpu = self.peak.num_gpu_bytes
        return told + (f" and {gpu / 1e9:.1f} GB of the GPU" if gpu else "")


def export(
    checkpoint: Path,
    out: Path,
    *,
    recipe: Bnb | Gptq,
    calibration: CalibrationSource | None = None,
    seed: int = 0,
    work: Path | None = None,
    resumable: bool = False,
    overwrite: bool = False,
) -> Export:
    """Quantizes the checkpoint into `out`. Linear layers only: embeddings and output head stay as they are.

    `calibration`: text for GPTQ. `work`: where GPTQ keeps what is not finished; OUT.work if not given, removed
    at the end. `resumable`: keep its state after every layer; killed, the same call goes on from there.

    The same checkpoint, recipe, text and seed give the same weights on the same kind of machine.

    Raises: CheckpointError, CorpusError, RecipeError, OutputError; ExportError for a checkpoint that cannot be
    quantized so, or has changed while it was read.
    """
    calibration = calibration or CalibrationSource(korean=())
    refuse_existing(out, overwrite, inputs=(checkpoint, *calibration.korean, *calibration.english))
    open_parent(checkpoint)
    request = Request(
        checkpoint=checkpoint,
        out=out,
        recipe=recipe,
        calibration=calibration,
        seed=seed,
        work=out.with_name(f"{out.name}.work") if work is None else work,
        is_resumable=resumable,
        overwrite=overwrite,
    )
    if isinstance(recipe, Bnb):
        from quant.making import make

        return make(request)
    calibration.files()
    _refuse_foreign(request)
    request.log.unlink(missing_ok=True)
    try:
        made: Export = apart.call("quant.making:make", request, environment=FOR_GPTQMODEL)
    except apart.EndedError as error:
        raise _ended(request, error) from error
    return made


def _refuse_foreign(request: Request) -> None:
    """Raises OutputError if others' files are where the unfinished is kept, and removed."""
    folder = request.unfinished
    if folder.exists() and not (folder.is_dir() and (request.identity.exists() or not any(folder.iterdir()))):
        raise OutputError(
            folder,
            expected="nothing, or what an unfinished export left",
            found="something else",
            next_step="move it away, or name another --work",
        )


def clear_unfinished(request: Request, *, ignore_errors: bool = False) -> None:
    """Removes all of it but its identity: killed midway, the rest is still known as an export's."""
    for path in list(request.unfinished.glob("*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=ignore_errors)
        elif path != request.identity:
            path.unlink()


def remove_unfinished(request: Request) -> None:
    """Removes the export's own folder."""
    clear_unfinished(request, ignore_errors=True)
    shutil.rmtree(request.unfinished, ignore_errors=True)


def _ended(request: Request, error: apart.EndedError) -> ExportError | OutputError:
    """Cleans up behind the process, which GPTQModel ends where one of its threads fails."""
    partial = request.out.with_name(request.out.name + PARTIAL_SUFFIX)
    said = request.log.read_text(encoding="utf-8", errors="replace") if request.log.exists() else ""
    is_full = FULL in said or any(_free_bytes(place) < FULL_BYTES for place in (partial, request.work))
    shutil.rmtree(partial, ignore_errors=True)
    if not request.is_resumable:
        remove_unfinished(request)
    return failed(request, (said.strip().splitlines() or [str(error)])[-1], is_full=is_full)


def _free_bytes(place: Path) -> int:
    """On the disk where it is, or would be."""
    absolute = place.absolute()
    return shutil.disk_usage(next(path for path in (absolute, *absolute.parents) if path.exists())).free


def failed(request: Request, found: str, *, is_full: bool) -> ExportError | OutputError:
    """The error that GPTQModel's comes to."""
    if is_full:
        request.log.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: others work there, too
            request.work.rmdir()
        return OutputError(
            request.work,
            expected="room for the layers that are done",
            found="a full disk",
            next_step="free some space, or name another --work, and run the command again",
        )
    return ExportError(
        request.checkpoint,
        expected="that GPTQModel quantizes it",
        found=found,
        next_step=f"see all that it said in {request.log}",
    )


def open_parent(directory: Path) -> Checkpoint:
    """A checkpoint to export.

    Raises: CheckpointError for one that breaks the contract; ExportError for an adapter, or an export.
    """
    if (directory / ADAPTER_FILE).exists():
        raise ExportError(
            directory / ADAPTER_FILE,
            expected="a whole model",
            found="an adapter, which is only a part of one",
            next_step="merge it into its base first: PeftModel.merge_and_unload(), then save_pretrained",
        )
    parent = open_checkpoint(directory)
    if parent.quantization is not None:
        raise ExportError(
            directory / "config.json",
            expected="weights that are not quantized",
            found=f"quant_method {parent.quantization}",
            next_step="export the checkpoint that it was made from",
        )
    return parent


def described(recipe: Bnb | Gptq) -> str:
    """What it does, in a line."""
    if isinstance(recipe, Bnb):
        double = "with" if recipe.double_quant else "without"
        return f"{recipe.quant_type}, {double} double quantization, computing in {recipe.compute_dtype}"
    groups = "one group a row" if recipe.group_size == -1 else f"groups of {recipe.group_size}"
    flags: Mapping[str, Any] = {"sym": recipe.sym, "desc_act": recipe.desc_act}
    told = ", ".join(f"{name}={json.dumps(value)}" for name, value in flags.items())
    return f"GPTQ, {recipe.bits} bits, {groups}, {told}"
