"""The harness's tasks, by its own names, with local rows in place of the Hub's where they are given."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

import lm_eval.tasks
from datasets import Dataset, DatasetDict
from jinja2 import UndefinedError
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from malmoi.errors import CorpusError, RecipeError
from train.evaluation.data import LocalRows, expected_name, read_rows
from train.evaluation.harness import build_prompts, quiet
from train.evaluation.polyglot import PROMPTS
from train.evaluation.request import Request
from train.loop import say

FAMILIES: Final[Mapping[str, str]] = {
    "kobest": "kobest",
    "haerae": "haerae",
    "kmmlu": "kmmlu",
    "mmlu": "mmlu",
    "boolq": "super_glue/boolq",
    "winogrande": "winogrande",
    "hellaswag": "hellaswag",
}
"""What the seeds report, and the harness's folders of it: to read all of its folders takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A task that can be asked."""

    task: Any
    """lm_eval.api.task.ConfigurableTask."""
    digests: Mapping[int, str]
    """Of all its prompts, by the number of examples."""
    split: str
    """That is asked."""
    note: str | None
    """Where it is not the one that the harness would ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """All that was named."""

    benchmarks: Mapping[str, Benchmark]
    groups: Mapping[str, tuple[str, ...]]
    """Of every group that was named, its tasks."""
    manager: TaskManager

    def aggregates(self, group: str) -> Mapping[str, bool]:
        """The metrics that are told of a group, and whether its tasks count by their questions."""
        found = self.manager.task_index[group].cfg.get("aggregate_metric_list") or ()
        return {each["metric"]: each.get("weight_by_size", True) for each in found}


def find_suite(request: Request) -> Suite:
    """Every task that the request names, its rows read and its prompts tried.

    Raises: RecipeError for a name that is none, or what cannot be asked of a task; CorpusError for rows that
    cannot be had, or lack a column.
    """
    manager = index_of(tuple(request.benchmarks))
    groups = {name: tuple(leaves(manager, name)) for name in request.benchmarks}
    names = dict.fromkeys(task for tasks in groups.values() for task in tasks)
    say(f"reading {len(names):,} tasks")
    with quiet():
        benchmarks = {name: _benchmark(manager, name, request) for name in names}
    return Suite(
        benchmarks=benchmarks,
        groups={name: tasks for name, tasks in groups.items() if tasks != (name,)},
        manager=manager,
    )


@cache
def index_of(names: tuple[str, ...]) -> TaskManager:
    """An index that knows the names, of no more folders than that takes."""
    root = Path(lm_eval.tasks.__file__).parent
    with quiet():
        if all(_family(name) for name in names):
            known = TaskManager(
                include_defaults=False,
                include_path=[
                    str(root / FAMILIES[family]) for family in {_family(name) or "" for name in names}
                ],
            )
            if all(name in known.task_index for name in names):
                return known
        return TaskManager()


def _family(name: str) -> str | None:
    return next((family for family in FAMILIES if name == family or name.startswith(f"{family}_")), None)


def leaves(manager: TaskManager, name: str) -> list[str]:
    """The tasks that a name stands for: its own, or those of a group or tag.

    Raises: RecipeError if it is none of the index.
    """
    entry = manager.task_index.get(name)
    if entry is None:
        near = get_close_matches(name, manager.all_tasks, 5)
        raise RecipeError(
            "--benchmarks",
            expected="names of lm-evaluation-harness's tasks or groups",
            found=name,
            next_step=f"near it are {', '.join(near)}" if near else f"some are {', '.join(FAMILIES)}",
        )
    if entry.kind.name == "TAG":
        return [task for each in sorted(entry.tags) for task in leaves(manager, each)]
    if entry.kind.name != "GROUP":
        return [name]
    members = entry.cfg["task"] if isinstance(entry.cfg["task"], list) else [entry.cfg["task"]]
    if not all(isinstance(member, str) for member in members):
        raise RecipeError(
            "--benchmarks",
            expected="a group that is a list of tasks",
            found=f"{name}, which changes them",
            next_step="name its tasks themselves",
        )
    return [task for member in members for task in leaves(manager, member)]


def _benchmark(manager: TaskManager, name: str, request: Request) -> Benchmark:
    entry = manager.task_index[name]
    config = dict(load_yaml(entry.yaml_path, resolve_func=True))
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    if config.get("output_type") != "multiple_choice":
        raise RecipeError(
            "--benchmarks",
            expected="tasks whose answers are chosen from a list",
            found=f"{name} ({config.get('output_type', 'generate_until')})",
            next_step="leave it out, or ask lm_eval itself",
        )
    config |= {**_prompts(name, request), **_metrics(config)}
    local = None
    if request.data is not None:
        local = read_rows(request.data, name, config, needs_examples=max(request.shots) > 0)
    with _rows_told(name, config, local):
        task = manager.load([{**config, **(_with_rows(config, local) if local else {})}])["tasks"][name]
    _check_shots(name, task, request.shots)
    with _rows_told(name, config, local):
        digests = {shots: build_prompts(task, shots, request) for shots in request.shots}
    split = str(task.config.test_split or task.config.validation_split)
    return Benchmark(task=task, digests=digests, split=split, note=_note(manager, name, split))


def _note(manager: TaskManager, name: str, split: str) -> str | None:
    usual = manager.task_index[name].cfg.get("test_split")
    return f"{name}: there is no {usual} split, so {split} was asked" if usual not in (None, split) else None


def _prompts(name: str, request: Request) -> Mapping[str, Any]:
    if request.prompts == "harness":
        return {}
    if name not in PROMPTS:
        raise RecipeError(
            "--prompts polyglot",
            expected=f"tasks that have such prompts ({', '.join(PROMPTS)})",
            found=name,
            next_step="leave one of the two out",
        )
    return PROMPTS[name]


def _metrics(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's own, but that none is looked for on the Hub: those of choices are computed without it."""
    if not config.get("metric_list"):
        return {}
    metrics = [
        {key: value for key, value in metric.items() if key != "hf_evaluate"}
        for metric in config["metric_list"]
    ]
    return {"metric_list": metrics}


def _with_rows(config: Mapping[str, Any], local: LocalRows) -> Mapping[str, Any]:
    """What of the configuration is otherwise where the rows are these.

    Where there is no test split the validation split is asked as if it were: the harness draws examples in
    another way where a task has none.
    """
    data = DatasetDict({split: Dataset.from_list(list(rows)) for split, rows in local.rows.items()})
    found: dict[str, Any] = {
        split: config.get(split) if config.get(split) in data else None
        for split in ("test_split", "validation_split", "training_split", "fewshot_split")
    }
    if config.get("test_split") and not found["test_split"]:
        found["test_split"] = found["validation_split"]
    return found | {"custom_dataset": lambda **_: data}


@contextmanager
def _rows_told(name: str, config: Mapping[str, Any], local: LocalRows | None) -> Iterator[None]:
    """What the harness raises over rows that it cannot have, or not use, told as ours."""
    hub = config.get("dataset_path")
    where = f"{name} ({', '.join(map(str, local.files.values()))})" if local else name
    try:
        yield
    except (KeyError, UndefinedError) as error:
        raise CorpusError(
            where,
            expected=f"rows as {hub} has them",
            found=f"none of {error}" if isinstance(error, KeyError) else str(error),
            next_step="add the column, or mend what is in it",
        ) from error
    except Exception as error:  # whatever the Hub, the network or the rows themselves raise
        files = [expected_name(name, split) for split in _needed(config)]
        raise CorpusError(
            where,
            expected=f"rows as {hub} has them"
            if local
            else f"{hub} on the Hub, or {', '.join(files)} in --data DIR",
            found=f"{type(error).__name__}: {error}",
            next_step="mend them" if local else "check the network, or name the directory of such files",
        ) from error


def _needed(config: Mapping[str, Any]) -> list[str]:
    """The splits to be asked, and to draw examples from."""
    asked = config.get("test_split") or config.get("validation_split")
    return [
        str(split) for split in (asked, config.get("fewshot_split") or config.get("training_split")) if split
    ]


def _check_shots(name: str, task: Any, shots: Sequence[int]) -> None:
    """Raises: RecipeError where there are too few examples, or the harness allows none."""
    is_asked_itself = task.fewshot_cfg.split == task.config.test_split  # the harness leaves that row out
    most = 0 if task.config.num_fewshot == 0 else len(task.sampler.df) - is_asked_itself
    if max(shots) > most:
        raise RecipeError(
            "--shots",
            expected=f"at most {most}, of which {name} has examples",
            found=str(max(shots)),
            next_step="ask with fewer",
        )
