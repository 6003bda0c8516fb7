"""How an export is made: the parent read and checked, its layers quantized, the rest copied, all digested."""

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from jinja2 import TemplateError

from malmoi.chat import GOLDEN_CONVERSATION
from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.checkpoint_files import TEMPLATE_FILE, TOKENIZER_FILE
from malmoi.errors import CheckpointError, ExportError
from malmoi.files import sole_writer, tells_of_full_disk
from malmoi.ledger import PARTS, OpenEntry, digest_parts
from malmoi.provenance import (
    FileRecord,
    Origin,
    checkpoint_digest,
    library_versions,
    record_files,
    text_digest,
)
from malmoi.servable import why_gptq_is_refused
from quant import bnb, gptq
from quant.calibration import CalibrationSet, calibration_set
from quant.export import (
    Export,
    Peak,
    Request,
    clear_unfinished,
    described,
    failed,
    open_parent,
    remove_unfinished,
)
from quant.layers import Width, linear_layers
from quant.packing import SECOND_CONFIG
from quant.recipe import Bnb, Gptq
from quant.rendering import render
from quant.weights import dtype_of, is_converted

COPIED: Final = (
    *("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *(TEMPLATE_FILE, TOKENIZER_FILE, "tokenizer.model", "vocab.json", "merges.txt"),
)
"""What an export has of its parent as it stands, where it is there."""
STAGE: Final = "export"
LIBRARIES: Final = ("malmoi", "torch", "transformers", "tokenizers", "gptqmodel", "bitsandbytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All that is known before a weight is written."""

    parent: Checkpoint
    files: Mapping[str, FileRecord]
    """The parent's, as they are."""
    layers: Mapping[str, Width]
    """To be quantized."""
    recipe: Bnb | Gptq
    settings: Mapping[str, Any]
    """`quantization_config`."""
    calibration: CalibrationSet | None


def make(request: Request) -> Export:
    """Makes the export. Raises: as quant.export.export."""
    started = time.monotonic()
    plan = _plan(request)
    origin, entry = _origin(plan, request.seed), _entry(plan.parent)
    with create_checkpoint(
        request.out, origin, renderer=render, entry=entry, overwrite=request.overwrite
    ) as partial:
        _write_small_files(plan, partial)
        if isinstance(plan.recipe, Bnb):
            bnb.write(plan.parent, partial, plan.layers, plan.recipe)
        else:
            _write_gptq(request, plan, plan.recipe, origin, partial)
        _refuse_changed(plan)
    return Export(
        directory=request.out,
        recipe=plan.recipe,
        parent_bytes=plan.parent.weight_bytes,
        num_bytes=open_checkpoint(request.out).weight_bytes,
        seconds=time.monotonic() - started,
        peak=_peak(),
        coverage=plan.calibration.coverage if plan.calibration else None,
    )


def _plan(request: Request) -> _Plan:
    """What is going to be done, having been said."""
    parent = open_parent(request.checkpoint)
    for note in parent.notes:
        _say(note)
    _refuse_odd(parent)
    layers = linear_layers(parent)
    _refuse_template(parent)
    if isinstance(request.recipe, Bnb):
        settings = bnb.settings(request.recipe)
        _say_before(parent, request.recipe, settings)
        return _Plan(
            parent=parent,
            files=_recorded(parent),
            layers=layers,
            recipe=request.recipe,
            settings=settings,
            calibration=None,
        )
    recipe = gptq.fit(request.recipe, layers)
    if request.is_resumable:
        gptq.check_resumable(parent)
    settings = gptq.settings(recipe)
    _say_before(parent, recipe, settings)
    files = _recorded(parent)
    calibration = calibration_set(parent, request.calibration, recipe.calibration, request.seed)
    _say(f"calibration: {calibration}")
    return _Plan(
        parent=parent, files=files, layers=layers, recipe=recipe, settings=settings, calibration=calibration
    )


def _refuse_odd(parent: Checkpoint) -> None:
    """Raises ExportError for what is tolerated in a checkpoint from elsewhere, and never in one made here."""
    odd = parent.notes[1:]  # the first tells that there is no malmoi.json
    if not odd:
        return
    token_ids = parent.vocabulary.values()
    if len(set(token_ids)) < parent.vocab_size:
        step = f"cut them off: model.resize_token_embeddings({max(token_ids) + 1}), then model.save_pretrained"
    elif parent.eos_token is None:
        step = "set eos_token in tokenizer_config.json to the token that ends a text"
    else:
        step = "add its id to eos_token_id in generation_config.json"
    raise ExportError(parent.path, expected="a checkpoint as malmoi writes one", found=odd[0], next_step=step)


def _refuse_template(parent: Checkpoint) -> None:
    """Raises ExportError for a chat template that the export's lock could not be taken from."""
    if parent.template is None:
        return
    try:
        render(parent.path, GOLDEN_CONVERSATION)
    except TemplateError as error:
        raise ExportError(
            parent.path,
            expected="a chat template that renders a conversation of users and assistants",
            found=str(error),
            next_step="mend the template, or remove it to export a base model",
        ) from error


def _recorded(parent: Checkpoint) -> Mapping[str, FileRecord]:
    """The parent's files as they are, which is as they were made. Raises: CheckpointError if it is not."""
    files = record_files(parent.path)
    made = parent.provenance.files if parent.provenance else {}
    altered = next((name for name, record in made.items() if files.get(name) != record), None)
    if altered is not None:
        raise CheckpointError(
            parent.path / altered,
            expected="the bytes that malmoi.json records",
            found="others",
            next_step="copy the checkpoint again",
        )
    return files


def _refuse_changed(plan: _Plan) -> None:
    before, after = plan.files, record_files(plan.parent.path)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ExportError(
            plan.parent.path / changed[0],
            expected="that it stays as it is while it is read",
            found="other content now",
            next_step="let what writes it finish, then run the command again; nothing was kept",
        )


def _say_before(parent: Checkpoint, recipe: Bnb | Gptq, settings: Mapping[str, Any]) -> None:
    """What one would want to know before waiting for it."""
    _say(f"{parent.path}: {described(recipe)} ({recipe.source})")
    if recipe.assumed:
        _say(f"assumed: {', '.join(recipe.assumed)}")
    if not isinstance(recipe, Gptq):
        return
    for where, on_cpu in (("", False), (" on a CPU", True)):
        reason = why_gptq_is_refused(settings, on_cpu=on_cpu)
        if reason:
            _say(f"vLLM 0.32 will not serve it{where}: it refuses {reason}; transformers loads it")
            break


def _origin(plan: _Plan, seed: int) -> Origin:
    """What malmoi.json says of the export; that a server refuses it as a metric of 0."""
    is_gptq, calibration = isinstance(plan.recipe, Gptq), plan.calibration
    served = {
        name: float(not is_gptq or why_gptq_is_refused(plan.settings, on_cpu=on_cpu) is None)
        for name, on_cpu in (("served_by_vllm_on_gpu", False), ("served_by_vllm_on_cpu", True))
    }
    return Origin(
        recipe=f"{'gptq' if is_gptq else 'bnb'}-{plan.recipe.name}",
        stage=STAGE,
        seed=seed if is_gptq else None,
        parent=checkpoint_digest(plan.files),
        data=calibration.digests if calibration else {},
        libraries=library_versions(*LIBRARIES),
        metrics=served | (calibration.metrics() if calibration else {}),
    )


def _entry(parent: Checkpoint) -> OpenEntry | None:
    """For the ledger, which proves that embeddings and output head are the parent's to the last bit."""
    ledger = parent.provenance.ledger if parent.provenance else None
    if ledger is None:
        return None
    trains = PARTS if is_converted(parent) else ("body",)
    return OpenEntry(past=ledger, stage=STAGE, trains=trains, before=digest_parts(parent.path, ledger.num_old))


def _write_small_files(plan: _Plan, partial: Path) -> None:
    parent, settings = plan.parent, plan.settings
    for name in COPIED:
        if (parent.path / name).exists():
            shutil.copyfile(parent.path / name, partial / name)
    dtype = str(dtype_of(parent)).removeprefix("torch.")
    name = "torch_dtype" if "torch_dtype" in parent.config else "dtype"
    config = {**parent.config, name: dtype, "quantization_config": settings}
    (partial / "config.json").write_text(_json(config), encoding="utf-8")
    if settings["quant_method"] == "gptq":
        (partial / SECOND_CONFIG).write_text(_json(settings), encoding="utf-8")


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _write_gptq(request: Request, plan: _Plan, recipe: Gptq, origin: Origin, partial: Path) -> None:
    """Raises: ExportError by GPTQModel's own words; OutputError if the disk that it works on is full."""
    assert plan.calibration is not None
    with _unfinished(request, origin, recipe) as folder:
        try:
            packed = gptq.quantize(
                plan.parent,
                recipe,
                plan.calibration.rows,
                work=folder,
                log=request.log,
                is_resumable=request.is_resumable,
            )
        except Exception as error:  # of many kinds
            said = f"{type(error).__name__}: {error}"
            raise failed(request, said, is_full=tells_of_full_disk(error)) from error
        gptq.write(plan.parent, partial, plan.layers, packed)
        request.log.unlink()


@contextmanager
def _unfinished(request: Request, origin: Origin, recipe: Gptq) -> Iterator[Path]:
    """The export's own folder; what another checkpoint, recipe, text or library left in it is removed."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    asked = [origin.parent, origin.data, origin.libraries, asdict(recipe), device]
    identity = text_digest(json.dumps(asked, sort_keys=True))
    with sole_writer(request.unfinished):
        file = request.identity
        if not (request.is_resumable and file.exists() and file.read_text() == identity):
            file.write_text("")  # from here on nothing of it is gone on from
            clear_unfinished(request)
            file.write_text(identity)
        try:
            yield request.unfinished
        except BaseException:
            if not request.is_resumable:
                _remove(request)
            raise
        _remove(request)


def _remove(request: Request) -> None:
    request.identity.write_text("")
    remove_unfinished(request)
    with suppress(OSError):  # not empty: a log, or what others have not finished
        request.work.rmdir()


def _peak() -> Peak:
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, gpu)


def _say(what: str) -> None:
    print(what, file=sys.stderr)
