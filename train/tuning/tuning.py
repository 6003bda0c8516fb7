"""One tuning: a checkpoint and its dialogues or preferences in, a chat checkpoint out.

Killed anywhere, the same command goes on from the last state that was written whole, to the same weights.
"""

import json
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import PartialState
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from malmoi.chat import TEMPLATES
from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.checkpoint_files import TEMPLATE_FILE
from malmoi.errors import CheckpointError, CorpusError, RecipeError, TrainingError
from malmoi.files import refuse_existing, sole_writer, write_whole
from malmoi.ledger import OpenEntry, digest_parts
from malmoi.provenance import Origin, checkpoint_digest, library_versions, record_files, text_digest
from train.loop import DECAYS, Resuming, explained, say, seeded, settings_of, start_processes, train_to_end
from train.muon import MuonAndAdamW
from train.pace import Pace
from train.packing import Example, Row, pack
from train.pretraining.parts import Exporter, compute_dtype, load_model, set_up, trained_parts
from train.pretraining.stages import LOG_FILE, kept_log, whole
from train.recipe import Tuning
from train.saving import SETTINGS, TOKENIZER, copy_files, rewrite_weights
from train.training import Examine, render_saved
from train.tuning.dialogues import Dialogue, Preference
from train.tuning.examples import Cuts, Pair, encode_dialogues, encode_preferences
from train.tuning.trainers import HELD_OUT_LOSS, AnswerTrainer, Padding, PreferenceTrainer, told_of

LIBRARIES: Final = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "tokenizers")
TOLD: Final = told_of(
    {
        HELD_OUT_LOSS: "held-out loss",
        "held_out_preference_accuracy": "accuracy",
        "held_out_margin": "margin",
        "held_out_chosen_logp": "log-probability of the chosen",
    }
)
MEASURED: Final = "held_out_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: everything that decides the result."""

    recipe: Tuning
    base: Path
    data: Sequence[Dialogue] | Sequence[Preference]
    held_out: Sequence[Dialogue] | Sequence[Preference] = ()
    seed: int = 0
    course: str | None = None
    """Digest of the course that this is the last step of, where it is one; the result names it."""


def tune(
    request: Request,
    out: Path,
    work: Path,
    pace: Pace,
    *,
    overwrite: bool = False,
    on_trained: Callable[[PreTrainedModel], object] | None = None,
    examine: Examine | None = None,
) -> Mapping[str, float]:
    """Tunes `request.base` into `out`. `work`: what a run goes on from. Returns what held-out data measures.

    `on_trained`: is given the model as it was trained, its adapters not yet merged. `examine`: measures the
    saved model; raises if it is not to be kept.

    Raises: RecipeError, CorpusError, TrainingError, OutputError, CheckpointError.
    """
    refuse_existing(out, overwrite, inputs=(request.base,))
    if not request.data:
        raise CorpusError("data", expected="at least one row", found="none", next_step="name other files")
    parent = open_checkpoint(request.base)
    processes = start_processes()
    origin = origin_of(request, checkpoint_digest(record_files(parent.path)))
    run = _Run(request, parent, origin, pace, out, work, on_trained, examine, overwrite)
    alone = sole_writer(work) if processes.is_main_process else nullcontext()
    with explained(work), seeded(request.seed), alone:
        if request.recipe.assumed:
            say(f"{request.recipe.name}: no source states {', '.join(request.recipe.assumed)}")
        measured = _train(run)
    processes.wait_for_everyone()  # the first is the last to finish: it writes
    return measured


@dataclass(frozen=True, slots=True)
class _Run:
    request: Request
    parent: Checkpoint
    origin: Origin
    pace: Pace
    out: Path
    work: Path
    on_trained: Callable[[PreTrainedModel], object] | None = None
    examine: Examine | None = None
    overwrite: bool = False

    @property
    def states(self) -> Path:
        """Of this tuning and no other."""
        identity = json.dumps([self.origin.parent, dict(self.origin.data), self.origin.seed])
        return self.pace.states(self.work / f"{self.request.recipe.stage.name}-{text_digest(identity)[:16]}")


def origin_of(request: Request, parent: str) -> Origin:
    """What the checkpoint will say of its making. `parent`: the base's digest."""
    course = {} if request.course is None else {"course": request.course}
    return Origin(
        recipe=request.recipe.name,
        stage=request.recipe.stage.name,
        seed=request.seed,
        parent=parent,
        data={
            "data": rows_digest(request.data),
            "held_out": rows_digest(request.held_out),
            "recipe": text_digest(repr(request.recipe)),
            **course,
        },
        libraries=library_versions(*LIBRARIES),
    )


def rows_digest(rows: Sequence[Dialogue] | Sequence[Preference]) -> str:
    """SHA-256 of every row's messages, in order."""
    return text_digest("\n".join(json.dumps(row.as_row(), ensure_ascii=False) for row in rows))


def _train(run: _Run) -> Mapping[str, float]:
    parent, recipe = run.parent, run.request.recipe
    num_old = _num_old(parent)
    before = digest_parts(parent.path, num_old) if num_old else None
    dtype = compute_dtype(parent)
    tokenizer = chat_tokenizer(parent, recipe)
    disable_progress_bar()  # of loading; training has its own
    model = load_model(parent.path, recipe.stage, dtype)
    set_up(model, recipe.stage, num_old or parent.vocab_size, dtype)
    Exporter(model, whole).check(parent.tensors)
    make = _answer_trainer if recipe.beta is None else _preference_trainer
    trainer = make(run, model, tokenizer)
    train_to_end(
        trainer,
        recipe.stage.name,
        evaluate_every=run.pace.evaluate_every,
        tensorboard=run.work / "tensorboard" / recipe.stage.name,
        told=TOLD,
        wandb=run.pace.wandb,
    )
    if run.on_trained is not None:
        run.on_trained(model)
    measured = {
        name: value
        for entry in trainer.state.log_history
        for name, value in entry.items()
        if name.startswith(MEASURED)
    }
    entry = None
    if before is not None:
        assert parent.provenance is not None
        assert parent.provenance.ledger is not None
        trains = trained_parts(recipe.stage, is_tied=parent.is_tied)
        entry = OpenEntry(past=parent.provenance.ledger, stage=recipe.stage.name, trains=trains, before=before)
    _save(run, trainer, tokenizer, measured, entry)
    return measured


def _num_old(parent: Checkpoint) -> int | None:
    """Rows of the base's own tokens; None where no ledger tells them from others."""
    ledger = parent.provenance.ledger if parent.provenance else None
    return ledger.num_old if ledger else None


def chat_tokenizer(parent: Checkpoint, recipe: Tuning) -> PreTrainedTokenizerBase:
    """The parent's tokenizer with the recipe's template; preferences are learnt in the parent's own."""
    if recipe.template not in TEMPLATES:
        raise RecipeError(
            f"--template {recipe.template}",
            expected=f"one of {', '.join(TEMPLATES)}",
            found=repr(recipe.template),
            next_step="name one of those",
        )
    if parent.eos_token is None:
        raise CheckpointError(
            parent.path / "tokenizer_config.json",
            expected="an eos_token, to end answers with",
            found="none",
            next_step="give the tokenizer one",
        )
    tokenizer = AutoTokenizer.from_pretrained(parent.path, local_files_only=True)
    if recipe.beta is None:
        tokenizer.chat_template = TEMPLATES[recipe.template]
    elif parent.template is None:
        raise CheckpointError(
            parent.path,
            expected="a chat model, to choose between whose answers preferences tell",
            found="no chat template",
            next_step="tune it on dialogues first (malmoi-train sft)",
        )
    return tokenizer


def _settings(run: _Run, num_rows: int) -> TrainingArguments:
    recipe = run.request.recipe
    beta1, beta2 = recipe.adam_betas
    num_processes = PartialState().num_processes
    return TrainingArguments(
        **settings_of(run.pace, run.states, recipe.rows_per_step, num_processes=num_processes),
        max_steps=recipe.epochs * math.ceil(num_rows / recipe.rows_per_step),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=DECAYS[recipe.decay],
        warmup_steps=recipe.warmup_share,
        weight_decay=recipe.weight_decay,
        adam_beta1=beta1,
        adam_beta2=beta2,
        max_grad_norm=recipe.max_grad_norm,
        neftune_noise_alpha=recipe.neftune_alpha,
        bf16=compute_dtype(run.parent) == torch.bfloat16,
        seed=run.request.seed,
    )


def _answer_trainer(run: _Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Resuming:
    recipe, request = run.request.recipe, run.request

    def encode(dialogues: Sequence[Dialogue]) -> tuple[list[Example], Cuts]:
        return encode_dialogues(tokenizer, dialogues, recipe.max_tokens)

    examples = _encoded("dialogues", request.data, encode)
    held_out = _encoded("held-out dialogues", request.held_out, encode)
    rows: Sequence[Example | Row] = examples
    if recipe.packed:
        random.Random(request.seed).shuffle(examples)
        rows = pack(examples, recipe.max_tokens, padding_id_of(tokenizer))
    settings = _settings(run, len(rows))
    num_tokens = sum(len(example.input_ids) for example in examples)
    return AnswerTrainer(
        model,
        settings,
        Padding(padding_id_of(tokenizer)),
        rows,
        held_out,
        optimizer=_optimizer(model, recipe),
        tokens_per_step=num_tokens * recipe.epochs / settings.max_steps,
        characters_per_token=_characters(request.data) / num_tokens,
    )


def _optimizer(model: PreTrainedModel, recipe: Tuning) -> torch.optim.Optimizer | None:
    if recipe.matrix_learning_rate is None:
        return None
    return MuonAndAdamW(
        model,
        matrix_learning_rate=recipe.matrix_learning_rate,
        learning_rate=recipe.learning_rate,
        betas=recipe.adam_betas,
        weight_decay=recipe.weight_decay,
    )


def _preference_trainer(run: _Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Resuming:
    recipe, request = run.request.recipe, run.request
    assert recipe.beta is not None

    def encode(preferences: Sequence[Preference]) -> tuple[list[Pair], Cuts]:
        return encode_preferences(tokenizer, preferences, recipe.max_prompt_tokens, recipe.max_tokens)

    pairs = _encoded("preferences", request.data, encode)
    held_out = _encoded("held-out preferences", request.held_out, encode)
    settings = _settings(run, len(pairs))
    num_tokens = sum(len(row.input_ids) for pair in pairs for row in (pair.chosen, pair.rejected))
    return PreferenceTrainer(
        model,
        settings,
        Padding(padding_id_of(tokenizer)),
        pairs,
        held_out,
        beta=recipe.beta,
        tokens_per_step=num_tokens * recipe.epochs / settings.max_steps,
        characters_per_token=_characters(request.data) / num_tokens,
    )


def _encoded(
    what: str, rows: Sequence[Any], encode: Callable[[Sequence[Any]], tuple[list[Any], Cuts]]
) -> list[Any]:
    """The rows in tokens; says what was cut or left out. Raises: CorpusError where nothing is left of some."""
    found, cuts = encode(rows)
    if told := cuts.told(len(rows)):
        say(f"{what}: {told}")
    if rows and not found:
        raise CorpusError(
            what,
            expected="at least one with an answer to learn",
            found=f"{len(rows)}, of which none is left",
            next_step="give others, or a recipe with more max_tokens",
        )
    return found


def padding_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """What fills a row; it is never read or learnt."""
    found: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return found


def _characters(rows: Sequence[Dialogue] | Sequence[Preference]) -> int:
    return sum(
        len(row.chosen) + len(row.rejected) + 2 * sum(len(turn.content) for turn in row.prompt)
        if isinstance(row, Preference)
        else sum(len(turn.content) for turn in row.messages)
        for row in rows
    )


def _save(
    run: _Run,
    trainer: Resuming,
    tokenizer: PreTrainedTokenizerBase,
    measured: dict[str, float],
    entry: OpenEntry | None,
) -> None:
    """Writes the chat checkpoint, adapters added to the weights; every process takes part, the first writes."""
    parent = run.parent.path
    exporter = Exporter(trainer.accelerator.unwrap_model(trainer.model), whole)
    if not trainer.is_world_process_zero():
        rewrite_weights(parent, None, exporter.tensor)
        return
    origin = replace(run.origin, metrics=measured)  # which grows until the block ends
    with create_checkpoint(
        run.out, origin, renderer=render_saved, entry=entry, overwrite=run.overwrite
    ) as partial:
        copy_files(parent, partial, *SETTINGS, *TOKENIZER)
        _write_settings(run.parent, partial, tokenizer)
        rewrite_weights(parent, partial, exporter.tensor)
        if not exporter.has_changed:
            raise TrainingError(
                str(run.out),
                expected="weights that tuning has changed",
                found="none: in the type they are stored in, all are as before",
                next_step="give more data or epochs, or a recipe with a higher learning rate",
            )
        write_whole(partial / LOG_FILE, json.dumps(kept_log(trainer.state.log_history), indent=1) + "\n")
        if run.examine is not None:
            measured.update(run.examine(partial))
    shutil.rmtree(run.states, ignore_errors=True)


def _write_settings(parent: Checkpoint, partial: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The template in its own file; and eos, which ends an answer, wherever a library looks for it."""
    (partial / TEMPLATE_FILE).write_text(tokenizer.chat_template, encoding="utf-8")
    settings = {name: value for name, value in parent.tokenizer_config.items() if name != "chat_template"}
    _write_json(partial / "tokenizer_config.json", settings)
    eos = tokenizer.eos_token_id
    _write_json(partial / "config.json", {**parent.config, "eos_token_id": eos})
    given = _without_nulls(parent.generation_config)
    special = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": padding_id_of(tokenizer)}
    known = given.get("eos_token_id", eos)
    ends = list(dict.fromkeys([eos, *([known] if isinstance(known, int) else known)]))
    ending = {"eos_token_id": eos if len(ends) == 1 else ends}
    _write_json(partial / "generation_config.json", {**_without_nulls(special), **given, **ending})


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """A setting that is null says no more than one that is absent."""
    return {name: value for name, value in values.items() if value is not None}


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
