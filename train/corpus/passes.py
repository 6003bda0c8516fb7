"""Pipelines that follow one another: a pass needs what the passes before it wrote, whole."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from malmoi.files import write_whole
from train.corpus.running import run_over
from train.corpus.shards import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One run of a pipeline, for any of datatrove's executors."""

    name: str
    steps: Sequence[PipelineStep]
    num_tasks: int


def run_pass(work: Pass, folder: Path, *, num_workers: int | None = None) -> None:
    """Runs the pass here; tasks that are marked done in `folder` are passed over."""
    tasks = [Shard(location=f"{work.name} {number}", format="jsonl") for number in range(work.num_tasks)]
    run_over(tasks, work.steps, folder, work.name, num_workers=num_workers)


def start_over_unless(folder: Path, plan: dict[str, Any]) -> None:
    """Empties `folder` unless it holds the beginning, or the end, of this very plan."""
    file = folder / "plan.json"
    text = json.dumps(plan, ensure_ascii=False, sort_keys=True)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_whole(file, text)
