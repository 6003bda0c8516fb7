"""Pipelines that follow one another: a pass needs what the passes before it wrote, whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from train.corpus.running import run_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One run of a pipeline, for any of datatrove's executors."""

    name: str
    steps: Sequence[PipelineStep]
    num_tasks: int


def run_pass(work: Pass, folder: Path, *, num_workers: int | None = None) -> None:
    """Runs the pass here; tasks that are marked done in `folder` are passed over."""
    run_tasks(work.steps, [1] * work.num_tasks, folder, work.name, num_workers=num_workers)
