"""Numbers that the models this house stands on were published with. Published, not measured here.

Shares of 1. `shots` and `prompts` are None where the source, as far as it was read, does not state them: such a
number is shown, and said not to be of the same prompts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from malmoi.errors import RecipeError

Prompts = Literal["harness", "polyglot"]
KOBEST: Final = ("kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedScore:
    """One number of a published table."""

    task: str
    """lm-evaluation-harness's name for it where it has one."""
    shots: int | None
    metric: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What one model was published with."""

    name: str
    url: str
    table: str
    """Where in it."""
    prompts: Prompts | None
    split: str | None
    note: str = ""
    scores: tuple[PublishedScore, ...]

    def score(self, task: str, shots: int | None, metric: str) -> PublishedScore | None:
        """The number beside a measured one, whatever its prompts; None if it does not state its examples."""
        if shots is None:
            return None
        wanted = (task, shots, metric)
        return next((found for found in self.scores if (found.task, found.shots, found.metric) == wanted), None)


def find_published(names: Sequence[str]) -> tuple[Published, ...]:
    """The published models of these names. Raises: RecipeError where there is none."""
    for name in names:
        if name not in PUBLISHED:
            raise RecipeError(
                "--published",
                expected=f"one of {', '.join(PUBLISHED)}",
                found=name,
                next_step="name one of these",
            )
    return tuple(PUBLISHED[name] for name in dict.fromkeys(names))


def _scores(
    metric: str, shots: Sequence[int | None], values: Mapping[str, Sequence[float]]
) -> tuple[PublishedScore, ...]:
    return tuple(
        PublishedScore(task=task, shots=count, metric=metric, value=value)
        for task, found in values.items()
        for count, value in zip(shots, found, strict=True)
    )


def _polyglot(size: str, *tasks: tuple[float, float, float, float]) -> Published:
    """`tasks`: of KOBEST's tasks in turn, with 0, 5, 10 and 50 examples."""
    return Published(
        name=f"polyglot-ko-{size}",
        url=f"https://huggingface.co/EleutherAI/polyglot-ko-{size}",
        table="Evaluation results, tables COPA (F1) to WiC (F1); also arXiv:2306.02254",
        prompts="polyglot",
        split="test",
        note="HellaSwag: an earlier revision of the cards has lower numbers (3.8b without examples: .4438, not "
        ".5707); neither states whether an ending's score is divided by its length. BoolQ and SentiNeg with 50 "
        "examples are the same for 1.3b and 3.8b, as published.",
        scores=_scores("f1", (0, 5, 10, 50), dict(zip(KOBEST, tasks, strict=True))),
    )


def _eeve(name: str, english: tuple[float, ...], korean: tuple[float, ...]) -> Published:
    """A line of EEVE's table 3: BoolQ, COPA, HellaSwag; KOBEST's tasks."""
    values = zip(("boolq", "copa", "hellaswag", *KOBEST), (*english, *korean), strict=True)
    return Published(
        name=name,
        url="https://arxiv.org/abs/2402.14714",
        table="Table 3",
        prompts="harness",
        split=None,
        note="By lm-evaluation-harness; which version of it, and which split, the paper does not state.",
        scores=_scores("acc", (0,), {task: (value,) for task, value in values}),
    )


def _korae(name: str, row: str, *values: float) -> Published:
    """A line of the README's table, in percent: Ko-ARC, HellaSwag, MMLU, TruthfulQA, CommonGen V2."""
    tasks = ("ko_arc", "ko_hellaswag", "ko_mmlu", "ko_truthfulqa", "ko_commongen_v2")
    return Published(
        name=name,
        url="https://github.com/gauss5930/KoRAE",
        table=f"README.md, Open Ko-LLM Leaderboard, {row}",
        prompts=None,
        split=None,
        note="The leaderboard's own tasks, which nothing here measures; metric and examples are not stated.",
        scores=_scores(
            "score",
            (None,),
            {task: (round(value / 100, 4),) for task, value in zip(tasks, values, strict=True)},
        ),
    )


def _tedllm(name: str, mmlu: float, hellaswag: float, llm_jp_eval: float) -> Published:
    return Published(
        name=name,
        url="https://huggingface.co/tokyo-electron-device-ai/llama3-tedllm-8b-v0",
        table="the card's evaluation",
        prompts=None,
        split=None,
        note="Japanese, not Korean. Examples, metric and prompts unconfirmed.",
        scores=_scores(
            "score", (None,), {"mmlu": (mmlu,), "hellaswag": (hellaswag,), "llm_jp_eval": (llm_jp_eval,)}
        ),
    )


def _every() -> Iterator[Published]:
    yield _polyglot(
        "1.3b",
        (0.3552, 0.4751, 0.4109, 0.4038),
        (0.7196, 0.7193, 0.7204, 0.7206),
        (0.5247, 0.5260, 0.5278, 0.5427),
        (0.6790, 0.6257, 0.5514, 0.7851),
        (0.3297, 0.4850, 0.4650, 0.3290),
    )
    yield _polyglot(
        "3.8b",
        (0.4320, 0.5263, 0.4930, 0.4038),
        (0.7595, 0.7608, 0.7638, 0.7788),
        (0.5707, 0.5830, 0.5670, 0.5787),
        (0.4858, 0.7950, 0.7320, 0.7851),
        (0.3390, 0.4944, 0.4203, 0.3835),
    )
    yield _polyglot(
        "5.8b",
        (0.4356, 0.5698, 0.5187, 0.5236),
        (0.7745, 0.7676, 0.7775, 0.7887),
        (0.5976, 0.5998, 0.5979, 0.6208),
        (0.3394, 0.8841, 0.8808, 0.9521),
        (0.3913, 0.4688, 0.4189, 0.3910),
    )
    yield _polyglot(
        "12.8b",
        (0.4818, 0.6041, 0.6289, 0.6448),
        (0.7937, 0.8108, 0.8037, 0.8369),
        (0.5954, 0.6306, 0.6098, 0.6118),
        (0.9117, 0.9015, 0.9345, 0.9723),
        (0.3985, 0.3683, 0.3307, 0.3273),
    )
    yield _eeve("solar-10.7b", (0.8257, 0.8700, 0.6393), (0.5057, 0.5750, 0.4320, 0.6146, 0.4881))
    yield _eeve("eeve-10.8b", (0.8492, 0.9000, 0.6203), (0.8568, 0.7530, 0.4900, 0.6675, 0.4992))
    yield _eeve("eeve-instruct-10.8b", (0.8810, 0.9300, 0.6502), (0.8860, 0.7610, 0.4700, 0.9521, 0.4937))
    yield _eeve("phi-2", (0.8336, 0.9000, 0.5583), (0.5021, 0.4770, 0.3280, 0.5063, 0.4881))
    yield _eeve("eeve-2.8b", (0.7404, 0.8900, 0.5247), (0.5299, 0.5820, 0.3800, 0.5164, 0.4881))
    yield _eeve("eeve-instruct-2.8b", (0.8248, 0.8700, 0.5392), (0.7066, 0.5640, 0.3660, 0.5290, 0.5230))
    yield _korae("korae-13b", "KoRAE-filtered-3ep", 46.33, 57.25, 42.8, 41.08, 55.73)
    yield _korae("korae-13b-dpo", "KoRAE-DPO", 46.5, 57.54, 42.87, 41.28, 55.37)
    yield _tedllm("llama-3-8b", 0.622, 0.792, 0.543)
    yield _tedllm("tedllm-8b", 0.591, 0.770, 0.575)
    yield Published(
        name="kollama2",
        url="https://github.com/psymon-dev/KoLlama2",
        table="README.md, Benchmarks",
        prompts=None,
        split=None,
        note="The section is there, and empty: no number was published.",
        scores=(),
    )


PUBLISHED: Final[Mapping[str, Published]] = {model.name: model for model in _every()}
