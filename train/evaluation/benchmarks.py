"""A task or a group of tasks, from the harness's answer to the score that is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr, unweighted_mean_stderr

from malmoi.provenance import text_digest
from train.evaluation.harness import ask
from train.evaluation.parts import Parts, Record
from train.evaluation.request import Request
from train.evaluation.results import ITEMS_FOLDER, Metric, Score
from train.evaluation.subject import Subject
from train.evaluation.tasks import Benchmark
from train.loop import say


def task_part(
    name: str, benchmark: Benchmark, shots: int, request: Request, subject: Subject, parts: Parts
) -> Record:
    """`score`, `items` and `notes` of a task with so many examples."""
    digest = benchmark.digests[shots]

    def find() -> Record:
        say(f"{name}, {shots} examples")
        asked = ask(subject, benchmark.task, shots, request)
        score = Score(
            metrics=asked.metrics,
            num_rows=len(asked.items),
            prompt_digest=digest,
            prompts=request.prompts,
            is_chat=request.is_chat,
            split=benchmark.split,
            version=asked.version,
            items=f"{ITEMS_FOLDER}/{name}-{shots}.jsonl",
        )
        cut = (
            f"{name}, {shots} examples: {asked.num_cut:,} of {asked.num_prompts:,} prompts are "
            f"longer than the model reads ({subject.max_tokens:,} tokens); their beginnings were cut off"
        )
        return {
            "score": asdict(score),
            "items": list(asked.items),
            "notes": [cut] if asked.num_cut else [],
        }

    decides = {"prompts": digest, "is_chat": request.is_chat, "batch_size": request.batch_size}
    return parts.get(f"{name}-{shots}", decides, find)


def group_score(scores: Sequence[Score], aggregates: Mapping[str, bool]) -> Score:
    """Of a group's tasks together, as the harness puts them together.

    `aggregates`: the metrics that it tells of the group, and whether tasks count by their questions. One that
    not all tasks have is left out.
    """
    sizes = [score.num_rows for score in scores]
    metrics = {}
    for name, is_weighted in aggregates.items():
        found = [score.metrics[name] for score in scores if name in score.metrics]
        if len(found) < len(scores):
            continue
        errors = [metric.stderr for metric in found if metric.stderr is not None]
        stderr: float | None = None
        if len(errors) == len(found):
            stderr = float(
                pooled_sample_stderr(errors, sizes) if is_weighted else unweighted_mean_stderr(errors)
            )
        value = aggregate_subtask_metrics([metric.value for metric in found], sizes, is_weighted)
        metrics[name] = Metric(value=float(value), stderr=stderr)
    return Score(
        metrics=metrics,
        num_rows=sum(sizes),
        prompt_digest=text_digest(" ".join(score.prompt_digest for score in scores)),
        prompts=scores[0].prompts,
        is_chat=scores[0].is_chat,
        split=None,
        version=" ".join(sorted({score.version for score in scores})),
        items=None,
    )
