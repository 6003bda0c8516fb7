"""Benchmarks against lm-evaluation-harness called directly, and what is told of data that cannot be asked."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import stdev
from typing import Any

import pytest

from malmoi import kobest as published
from malmoi.errors import CorpusError, RecipeError
from tests.support.benchmarks import Row, ask_harness, kobest_rows, write_kobest, write_rows
from train.evaluation.bootstrap import macro_f1_stderr
from train.evaluation.compare import Line, compare
from train.evaluation.evaluation import run
from train.evaluation.polyglot import PROMPTS
from train.evaluation.request import Request
from train.evaluation.results import Results, write, write_items
from train.evaluation.results import read as read_results
from train.evaluation.tasks import find_suite, index_of, leaves

KOBEST = ("kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic")
SHOTS = (0, 3)
FILES = "MALMOI_KOBEST"
"""Environment variable: the directory of KoBEST's own files."""


def hub_rows(folder: Path) -> dict[str, dict[str, list[Row]]]:
    """Of each task the splits as the harness names them; where there is no test split, dev stands in for it."""
    data: dict[str, dict[str, list[Row]]] = {}
    for task, (name, renamed) in published.RENAMED.items():
        splits: dict[str, list[Row]] = {}
        for split in ("train", "dev", "test"):
            file = folder / f"{name}.{split}.jsonl.gz"
            if file.exists():
                with gzip.open(file, "rt", encoding="utf-8") as lines:
                    splits[published.HUB_SPLITS[split]] = [renamed(json.loads(line)) for line in lines]
        data[f"kobest_{task}"] = (
            {"test": splits.get("validation", [])} | {"validation": splits["train"]} | splits
        )
    return data


@pytest.fixture(scope="module")
def evaluated(base: Path, kobest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """All five tasks, without examples and with."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    request = Request(model=str(base), benchmarks=("kobest",), shots=SHOTS, data=kobest)
    return out, run(request, out, out.with_name("work"))


@pytest.mark.parametrize("shots", SHOTS)
def test_numbers_are_those_of_the_harness_called_directly(
    evaluated: tuple[Path, Results], base: Path, kobest: Path, shots: int
) -> None:
    direct = ask_harness(base, ["kobest"], hub_rows(kobest), shots)
    assert_same(evaluated[1], direct, shots)


def assert_same(found: Results, direct: Mapping[str, Mapping[str, float]], shots: int) -> None:
    for task, numbers in direct.items():
        metrics = found.benchmarks[task][shots].metrics
        assert {name: metric.value for name, metric in metrics.items()} == {
            name.removesuffix(",none"): value
            for name, value in numbers.items()
            if name.endswith(",none") and "stderr" not in name
        }
        for name in metrics.keys() & {"acc", "acc_norm"}:
            assert metrics[name].stderr == numbers[f"{name}_stderr,none"]


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 5])
def test_numbers_of_kobests_own_files_are_the_harnesss(
    demo_checkpoint: Path, tmp_path: Path, shots: int
) -> None:
    folder = os.environ.get(FILES)
    if folder is None:
        pytest.skip(f"{FILES} names no directory of KoBEST's files")
    request = Request(
        model=str(demo_checkpoint), benchmarks=KOBEST, shots=(shots,), data=Path(folder), batch_size=16
    )
    found = run(request, tmp_path / "out", tmp_path / "work")
    direct = ask_harness(demo_checkpoint, ["kobest"], hub_rows(Path(folder)), shots, batch_size=16)
    assert_same(found, direct, shots)


def test_items_are_what_the_numbers_are_made_of(evaluated: tuple[Path, Results]) -> None:
    out, found = evaluated
    for task in KOBEST:
        for shots in SHOTS:
            score = found.benchmarks[task][shots]
            assert score.items is not None
            items = [json.loads(line) for line in (out / score.items).read_text().splitlines()]
            assert [item["id"] for item in items] == list(range(score.num_rows))
            right = [item["correct"] for item in items]
            assert right == [item["label"] == item["prediction"] for item in items]
            assert score.metrics["acc"].value == sum(right) / len(right)
            pairs = [(item["label"], item["prediction"]) for item in items]
            if "acc_norm" in score.metrics:
                by_length = [item["correct_norm"] for item in items]
                assert score.metrics["acc_norm"].value == sum(by_length) / len(by_length)
            assert score.metrics["f1"].value == pytest.approx(macro_f1(pairs))


def test_accuracy_by_length_is_tested_too(
    evaluated: tuple[Path, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, found = evaluated
    other = Path(shutil.copytree(out, tmp_path / "other"))
    write(other, replace(found, name="other"))
    file = other / str(found.benchmarks["kobest_hellaswag"][0].items)
    items = [json.loads(line) for line in file.read_text().splitlines()]
    num_wrong = sum(not item["correct_norm"] for item in items)
    write_items(other, str(file.relative_to(other)), [item | {"correct_norm": True} for item in items])
    monkeypatch.setattr("train.evaluation.compare.FEWEST_ITEMS", len(items))
    measured = compare([out, other]).lines[Line("benchmark", "kobest_hellaswag", "acc_norm", 0)][1]
    assert measured is not None and measured.difference is not None
    assert measured.difference.value == pytest.approx(num_wrong / len(items))


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    scores = []
    for kind in {kind for pair in pairs for kind in pair}:
        hits = sum(pair == (kind, kind) for pair in pairs)
        scores.append(2 * hits / sum((label == kind) + (guess == kind) for label, guess in pairs))
    return sum(scores) / len(scores)


def test_the_standard_error_of_macro_f1_is_that_of_drawn_questions() -> None:
    random = Random(0)
    pairs = [(label, label if random.random() < 0.7 else random.randrange(3)) for label in (0, 1, 1, 2) * 20]
    drawn = [macro_f1(random.choices(pairs, k=len(pairs))) for _ in range(1000)]
    labels, guesses = zip(*pairs, strict=True)
    assert macro_f1_stderr(labels, guesses) == pytest.approx(stdev(drawn), rel=0.1)


def test_what_a_result_says_of_its_questions(evaluated: tuple[Path, Results]) -> None:
    found = evaluated[1]
    assert read_results(evaluated[0]) == found
    splits = {task: found.benchmarks[task][0].split for task in KOBEST}
    assert splits == dict(zip(KOBEST, ("validation", "test", "validation", "test", "test"), strict=True))
    assert found.notes == (
        "kobest_boolq: there is no test split, so validation was asked",
        "kobest_hellaswag: there is no test split, so validation was asked",
    )
    digests = [found.benchmarks[task][shots].prompt_digest for task in KOBEST for shots in SHOTS]
    assert len(set(digests)) == len(digests)
    group = found.benchmarks["kobest"][0]
    assert group.num_rows == 5 * 9
    assert group.metrics["acc"].value == pytest.approx(
        sum(found.benchmarks[task][0].metrics["acc"].value for task in KOBEST) / 5
    )
    assert "acc_norm" not in group.metrics, "only one of the five tasks has it"


def digests_of(**request: Any) -> dict[str, Mapping[int, str]]:
    suite = find_suite(Request(model="any", **request))
    return {name: benchmark.digests for name, benchmark in suite.benchmarks.items()}


def test_examples_are_of_the_training_split_and_of_the_seed(kobest: Path) -> None:
    request: dict[str, Any] = {"benchmarks": ("kobest_sentineg",), "data": kobest, "shots": (2,)}
    suite = find_suite(Request(model="any", **request))
    instances = suite.benchmarks["kobest_sentineg"].task.instances
    train = {row["Text"] for row in kobest_rows(12, first=9)["SentiNeg"]}
    asked = [row["Text"] for row in kobest_rows(9)["SentiNeg"]]
    for number, instance in enumerate(instances[::2]):
        *examples, question = instance.args[0].split("\n\n")
        assert question == f"문장: {asked[number]} 긍부정:"
        assert len(examples) == 2
        assert {example.removeprefix("문장: ").partition(" 긍부정:")[0] for example in examples} <= train
    first = digests_of(**request)
    assert digests_of(**request) == first
    assert digests_of(**request, seed=1) != first
    assert digests_of(**request, limit=3) != first


def prompts_of(task: str, kobest: Path, prompts: str) -> list[tuple[str, str]]:
    suite = find_suite(Request(model="any", benchmarks=(task,), data=kobest, prompts=prompts))  # type: ignore[arg-type]
    return [instance.args for instance in suite.benchmarks[task].task.instances]


@pytest.mark.parametrize("task", KOBEST)
def test_polyglots_prompts_differ_from_todays_in_a_blank_of_copas(kobest: Path, task: str) -> None:
    today, polyglot = (prompts_of(task, kobest, prompts) for prompts in ("harness", "polyglot"))
    if task == "kobest_copa":
        assert today[0][0].endswith("  왜냐하면")
        today = [(text.replace("  ", " "), answer) for text, answer in today]
        assert {text.split()[-1] for text, _ in polyglot} == {"왜냐하면", "그래서"}
    assert polyglot == today
    assert set(PROMPTS) == set(KOBEST)


OTHERS: dict[str, dict[str, list[Row]]] = {
    "haerae_history": {
        "test": [
            {"query": f"{number}번: 맞는 것은? (A) 하나 (B) 둘 (C) 셋 (D) 넷 (E) 다섯", "answer": f"({answer})"}
            for number, answer in enumerate("ABCDE")
        ]
    },
    "kmmlu_biology": {
        split: [
            {
                "question": f"{split} {number}",
                **dict(zip("ABCD", NUMBERS, strict=True)),
                "answer": 1 + number % 4,
            }
            for number in range(5)
        ]
        for split in ("test", "dev")
        for NUMBERS in (("하나", "둘", "셋", "넷"),)
    },
    "mmlu_anatomy": {
        split: [
            {"question": f"{split} {number}?", "choices": ["one", "two", "three", "four"], "answer": number % 4}
            for number in range(5)
        ]
        for split in ("test", "dev")
    },
    "boolq": {
        split: [
            {"passage": f"{split} {number} is a number.", "question": f"is {number} odd", "label": number % 2}
            for number in range(5)
        ]
        for split in ("validation", "train")
    },
    "winogrande": {
        split: [
            {
                "sentence": f"{number} met Seoul and _ was the {split}.",
                "option1": "it",
                "option2": "he",
                "answer": str(1 + number % 2),
            }
            for number in range(5)
        ]
        for split in ("validation", "train")
    },
    "hellaswag": {
        split: [
            {
                "ctx_a": f"A {split} man has {number} apples.",
                "ctx_b": "he",
                "activity_label": "Eating",
                "endings": ["eats.", "sleeps [title] well.", "reads books.", "runs."],
                "label": str(number % 4),
            }
            for number in range(5)
        ]
        for split in ("validation", "train")
    },
}
"""Of each suite one task, in the columns of its data set on the Hub."""
HARNESS_FOLDERS = ["haerae", "kmmlu/default", "mmlu/default", "super_glue/boolq", "winogrande", "hellaswag"]


def write_others(folder: Path) -> Path:
    for task, splits in OTHERS.items():
        for split, rows in splits.items():
            write_rows(folder / f"{task}.{split}.jsonl{'.gz' if split == 'test' else ''}", rows)
    return folder


def test_other_suites_are_asked_from_files_in_the_hubs_columns(base: Path, tmp_path: Path) -> None:
    request = Request(
        model=str(base), benchmarks=tuple(OTHERS), shots=(2,), data=write_others(tmp_path), batch_size=4
    )
    found = run(request, tmp_path / "out", tmp_path / "work")
    direct = ask_harness(base, HARNESS_FOLDERS, OTHERS, 2, batch_size=4)
    assert_same(found, direct, 2)


@pytest.mark.parametrize(
    ("task", "most"),
    [
        pytest.param("mmlu_anatomy", 5, id="all of a split of their own"),
        pytest.param("haerae_history", 4, id="those that are not asked"),
        pytest.param("boolq", 4, id="the harness draws one more, lest it be the one that is asked"),
    ],
)
def test_as_many_examples_as_the_harness_can_draw(tmp_path: Path, task: str, most: int) -> None:
    folder = write_others(tmp_path)
    digests_of(benchmarks=(task,), data=folder, shots=(most,))
    with pytest.raises(RecipeError, match=f"at most {most}, of which {task} has examples"):
        digests_of(benchmarks=(task,), data=folder, shots=(most + 1,))


def test_groups_stand_for_their_tasks() -> None:
    counts = {"kobest": 5, "haerae": 5, "kmmlu": 45, "mmlu": 57, "kmmlu_humss": 11, "mmlu_stem_tasks": 19}
    for name, count in counts.items():
        assert len(set(leaves(index_of((name,)), name))) == count


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(
            lambda folder: write_rows(folder / "COPA.test.jsonl.gz", [{"sentence": "비가 왔다."}]),
            r"COPA\.test\.jsonl\.gz:1: expected a row with the columns of COPA, found no column 'question'",
            id="a column lacks",
        ),
        pytest.param(
            lambda folder: (folder / "COPA.test.jsonl.gz").rename(folder / "COPA.testing.jsonl.gz"),
            r"expected COPA\.test\.jsonl\[\.gz\] \(or kobest_copa\.test\.jsonl\[\.gz\]\) or COPA\.dev.*"
            r"found COPA\.testing\.jsonl\.gz, COPA\.train\.jsonl\.gz",
            id="a wrong split",
        ),
        pytest.param(
            lambda folder: (folder / "COPA.train.jsonl.gz").unlink(),
            r"expected COPA\.train\.jsonl\[\.gz\].*found COPA\.test\.jsonl\.gz",
            id="no examples",
        ),
        pytest.param(
            lambda folder: (folder / "COPA.test.jsonl.gz").write_bytes(b"no gzip"),
            r"COPA\.test\.jsonl\.gz:0: expected JSON lines, a row on each, found BadGzipFile",
            id="not packed",
        ),
        pytest.param(
            lambda folder: write_rows(folder / "COPA.test.jsonl.gz", []),
            r"COPA\.test\.jsonl\.gz: expected rows, found none",
            id="no rows",
        ),
        pytest.param(
            lambda folder: write_rows(
                folder / "COPA.test.jsonl.gz", [dict(kobest_rows(1)["COPA"][0]) | {"question": "왜"}]
            ),
            r"kobest_copa.*expected rows as skt/kobest_v1 has them, found none of '왜'",
            id="something else in a column",
        ),
        pytest.param(
            lambda folder: write_rows(
                folder / "kobest_copa.test.jsonl", [{"premise": "비", "question": "원인"}, {"premise": "비"}]
            ),
            r"kobest_copa\.test\.jsonl:2: expected the columns of the first row \(premise, question\)",
            id="rows of different columns",
        ),
        pytest.param(
            lambda folder: write_rows(
                folder / "kobest_copa.test.jsonl", [{"premise": "비", "question": "원인"}]
            ),
            r"kobest_copa.*expected rows as skt/kobest_v1 has them, found none of 'label'",
            id="a column of the Hub's lacks",
        ),
    ],
)
def test_data_that_cannot_be_asked_is_told_before_any_model_is_loaded(
    tmp_path: Path, spoil: Any, expected: str
) -> None:
    folder = write_kobest(tmp_path / "rows", num_rows=2, num_examples=3)
    spoil(folder)
    with pytest.raises(CorpusError, match=expected) as told:
        find_suite(Request(model="any", benchmarks=("kobest_copa",), data=folder, shots=(0, 1)))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("benchmarks", "request_", "expected"),
    [
        pytest.param(
            ("kobest_boolk",),
            {},
            "names of lm-evaluation-harness's tasks or groups, found kobest_boolk; .*kobest_boolq",
            marks=pytest.mark.slow,  # all of the harness's folders are read
        ),
        (
            ("mmlu_anatomy_generative",),
            {},
            r"chosen from a list, found mmlu_anatomy_generative \(generate_until\)",
        ),
        (("kobest_wic",), {"shots": (50,)}, "at most 12, of which kobest_wic has examples, found 50"),
        (("boolq",), {"prompts": "polyglot"}, "tasks that have such prompts .*found boolq"),
    ],
)
def test_what_cannot_be_asked_of_a_task_is_told(
    kobest: Path, benchmarks: Sequence[str], request_: dict[str, Any], expected: str
) -> None:
    with pytest.raises(RecipeError, match=expected):
        find_suite(Request(model="any", benchmarks=benchmarks, data=kobest, **request_))


def test_offline_the_files_that_are_needed_are_named() -> None:
    """tests/conftest.py keeps the Hub out of reach."""
    with pytest.raises(
        CorpusError, match=r"kmmlu_biology\.test\.jsonl\[\.gz\], kmmlu_biology\.dev\.jsonl\[\.gz\] in --data"
    ) as told:
        find_suite(Request(model="any", benchmarks=("kmmlu_biology",)))
    assert "HAERAE-HUB/KMMLU on the Hub" in str(told.value)
