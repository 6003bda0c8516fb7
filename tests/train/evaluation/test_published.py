"""The published numbers: each has a source, and what can be checked against what the source says of it."""

import pytest

from malmoi.errors import RecipeError
from train.evaluation.published import KOBEST, PUBLISHED, find_published


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_number_has_a_source_and_is_a_share(name: str) -> None:
    model = PUBLISHED[name]
    assert model.url.startswith("https://")
    assert model.table
    assert model.scores or "no number" in model.note
    for score in model.scores:
        assert 0 < score.value < 1
        assert score.metric in ("acc", "f1", "score")
    rows = [(score.task, score.shots, score.metric) for score in model.scores]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize(
    ("name", "average"),
    [
        ("solar-10.7b", 0.6188),
        ("eeve-10.8b", 0.7045),
        ("eeve-instruct-10.8b", 0.7530),
        ("phi-2", 0.5742),
        ("eeve-2.8b", 0.5814),
        ("eeve-instruct-2.8b", 0.6153),
        ("korae-13b", 0.4864),
        ("korae-13b-dpo", 0.4871),
    ],
)
def test_the_average_is_the_one_that_the_source_states(name: str, average: float) -> None:
    values = [score.value for score in PUBLISHED[name].scores]
    assert sum(values) / len(values) == pytest.approx(average, abs=0.0001)


@pytest.mark.parametrize("size", ["1.3b", "3.8b", "5.8b", "12.8b"])
def test_polyglots_tables_are_whole(size: str) -> None:
    model = PUBLISHED[f"polyglot-ko-{size}"]
    assert {(score.task, score.shots) for score in model.scores} == {
        (task, shots) for task in KOBEST for shots in (0, 5, 10, 50)
    }
    assert model.prompts == "polyglot"


def test_a_number_is_found_by_its_row() -> None:
    model = PUBLISHED["polyglot-ko-3.8b"]
    found = model.score("kobest_sentineg", 5, "f1")
    assert found is not None
    assert found.value == 0.7950
    assert model.score("kobest_sentineg", 5, "acc") is None
    assert model.score("kobest_sentineg", 1, "f1") is None


def test_what_is_not_there_is_refused() -> None:
    assert [model.name for model in find_published(["kollama2", "tedllm-8b", "kollama2"])] == [
        "kollama2",
        "tedllm-8b",
    ]
    with pytest.raises(RecipeError, match=r"--published: expected one of polyglot-ko-1\.3b, .*found polyglot;"):
        find_published(["polyglot"])
