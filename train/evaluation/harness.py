"""lm-evaluation-harness, asked one task at a time; it says nothing on stdout."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
from aiohttp import ClientError
from lm_eval.evaluator import evaluate

from malmoi.errors import ServeError
from malmoi.provenance import text_digest
from train.evaluation.bootstrap import macro_f1_stderr
from train.evaluation.request import Request
from train.evaluation.results import Metric
from train.evaluation.subject import Subject

BOOTSTRAPS: Final = 1000
"""Draws for a standard error that the harness has no formula for, as it has one for means."""
LOUD: Final = ("lm_eval", "transformers", "datasets", "huggingface_hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of a task."""

    metrics: Mapping[str, Metric]
    items: Sequence[Mapping[str, Any]]
    version: str
    num_prompts: int
    """With each answer to choose from."""
    num_cut: int
    """Of those, longer than the model reads; the harness cuts off their beginnings."""


def build_prompts(task: Any, shots: int, request: Request) -> str:
    """Has the task make its prompts with so many examples; the digest of them and of the answers, raw."""
    _draw(task, shots, request)
    with quiet():
        task.build_all_requests(limit=request.limit)
    return text_digest(json.dumps([list(instance.args) for instance in task.instances], ensure_ascii=False))


def _draw(task: Any, shots: int, request: Request) -> None:
    """Sets how many examples are drawn, and from where on: the same seed draws the same ones."""
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(request.seed)


def ask(subject: Subject, task: Any, shots: int, request: Request) -> Asked:
    """Asks a model all of the task's questions.

    Raises: ServeError if it is behind an address and does not answer.
    """
    name = task.config.task
    _draw(task, shots, request)
    lm = subject.harness(request.batch_size, is_chat=request.is_chat)
    with quiet(), _connected(subject):
        found = evaluate(
            lm,
            {"tasks": {name: task}},
            limit=request.limit,
            bootstrap_iters=BOOTSTRAPS,
            apply_chat_template=request.is_chat,
            fewshot_as_multiturn=True,
        )
    assert found is not None, "this is the only process"
    samples = found["samples"][name]
    items = [_item(task, sample) for sample in samples]
    texts = ["".join(argument) for sample in samples for argument in sample["arguments"]]
    lengths = list(map(len, subject.tokenizer(texts, verbose=False)["input_ids"]))
    return Asked(
        metrics=_metrics(found["results"][name], items),
        items=items,
        version=str(found["versions"][name]),
        num_prompts=len(lengths),
        num_cut=sum(length > subject.max_tokens + 1 for length in lengths),
    )


def _item(task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    """A question as the harness judges it: the likeliest answer against the right one.

    `correct_norm`: whether the answer is right that is likeliest by its length, where the task asks for that.
    """
    row = sample["doc"]
    choices = task.doc_to_choice(row)
    prediction = int(np.argmax([likelihood for likelihood, _ in sample["filtered_resps"][: len(choices)]]))
    label = task.doc_to_text(row) if task.multiple_input else task.doc_to_target(row)
    if isinstance(label, str):
        label = choices.index(label)
    right = label if isinstance(label, list) else [label]
    item = {"id": sample["doc_id"], "label": label, "prediction": prediction, "correct": prediction in right}
    return item | ({"correct_norm": bool(sample["acc_norm"])} if "acc_norm" in sample else {})


def _metrics(found: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """By name, with the harness's standard errors; that of macro F1, which it has none for, by bootstrap."""
    metrics = {}
    for key, value in found.items():
        name, comma, kind = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        stderr = found.get(f"{name}_stderr,{kind}")
        if not isinstance(stderr, float) and name == "f1" and len(items) > 1:
            stderr = macro_f1_stderr(*([item[column] for item in items] for column in ("label", "prediction")))
        known = float(stderr) if isinstance(stderr, float) else None
        metrics[name if kind == "none" else f"{name},{kind}"] = Metric(value=float(value), stderr=known)
    return metrics


@contextmanager
def _connected(subject: Subject) -> Iterator[None]:
    """What the harness raises where a server stops answering, told as ours."""
    try:
        yield
    except (ClientError, TimeoutError) as error:
        raise ServeError(
            subject.model,
            expected="an answer",
            found=f"{type(error).__name__}: {error}",
            next_step="check the server; the same command goes on where it was",
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """The harness tells of every default it takes, and draws its bars even where no one looks."""
    loggers = [logging.getLogger(name) for name in LOUD]
    before = [logger.level for logger in loggers]
    with ExitStack() as stack:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(logging.ERROR)
            stack.callback(logger.setLevel, level)
        if datasets.are_progress_bars_disabled() is False:
            datasets.disable_progress_bars()
            stack.callback(datasets.enable_progress_bars)
        said = sys.stderr
        if not said.isatty():
            said = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(redirect_stderr(said))
        stack.enter_context(redirect_stdout(said))
        yield
