"""Runs datatrove steps over shards on this machine's cores, a shard to a task."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm

from train.corpus.shards import Shard


class _Executor(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """datatrove's local executor, silent: what users are to know is in Corpus and in CorpusError."""

    def _run_for_rank(self, *args: Any, **options: Any) -> Any:
        logger.disable("datatrove")
        return super()._run_for_rank(*args, **options)


def workers_for(shards: Sequence[Shard], num_workers: int | None = None) -> int:
    """Processes for so many shards: one a core, unless told otherwise."""
    return min(num_workers or os.cpu_count() or 1, len(shards))


def run_over(
    shards: Sequence[Shard],
    pipeline: Sequence[PipelineStep],
    folder: Path,
    description: str,
    *,
    num_workers: int | None = None,
) -> None:
    """Runs the pipeline with a task for each shard; those that are marked done in `folder` are passed over."""
    workers = workers_for(shards, num_workers)
    executor = _Executor(list(pipeline), tasks=len(shards), workers=workers, logging_dir=str(folder))
    logger.disable("datatrove")
    with _progress(shards, folder / "completions", description):
        executor.run()


@contextmanager
def _progress(shards: Sequence[Shard], completions: Path, description: str) -> Iterator[None]:
    """A bar over the corpus's bytes that moves when a shard is done."""
    weights = [max(shard.num_bytes, 1) for shard in shards]
    done = threading.Event()

    def watch() -> None:
        with tqdm(total=sum(weights), desc=description, unit="B", unit_scale=True, disable=None) as bar:
            ended = False
            while not ended:
                ended = done.wait(0.5)
                numbers = [int(mark.name) for mark in completions.glob("[0-9]*")]
                bar.n = sum(weights[number] for number in numbers)
                bar.refresh()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
