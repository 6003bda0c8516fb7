"""Quality filters: each rule on the text that breaks it and on the one that just does not."""

from dataclasses import replace
from pathlib import Path

import pytest
from datatrove.data import Document

from malmoi.errors import RecipeError
from train.corpus.filters import Quality, QualityFilter, flaws, read_bad_words
from train.corpus.removals import Removals, read_removed

GOOD = "우리나라 사람들은 예로부터 글읽기를 즐겨하였으며 아이들에게도 이야기를 자주 들려주곤 하였습니다."
QUALITY = Quality()


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (GOOD, []),
        (GOOD[:49], ["too short"]),
        (" " * 60, ["too short"]),
        (GOOD * 2_000, ["too long"]),
        ("나 너 우리 집 꽃 밥 물 " * 10, ["short words"]),
        ("긴낱말을띄어쓰지않고적은글이다 " * 10, ["long words"]),
        (f"{GOOD} 그리고... 그래서… #태그", ["ellipses and #"]),
        ("\n".join(f"- {GOOD[number:]}" for number in range(10)), ["bullets"]),
        (f"**굵은 제목** {GOOD}", []),  # dps: a line that begins with a bullet, and the only one
        ("\n".join(f"{GOOD} {GOOD} 그렇지만..." for _ in range(4)), ["lines without an end"]),
        (f"{GOOD} {GOOD} 그렇지만...", []),
        ("The quick brown fox jumps over the lazy dogs again and again 그리고", ["little Hangul"]),
    ],
)
def test_rules(text: str, broken: list[str]) -> None:
    assert list(flaws(text, QUALITY)) == broken


def test_bad_words(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("이야기\n\n도박장\n", encoding="utf-8")
    quality = replace(QUALITY, bad_words=read_bad_words(file))
    assert list(flaws(GOOD, quality)) == ["bad words"]
    with pytest.raises(RecipeError, match="a word on each line"):
        read_bad_words(tmp_path / "none.txt")


def test_the_step_names_the_first_reason(tmp_path: Path) -> None:
    texts = [GOOD, "짧다", GOOD * 2_000, GOOD]
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    step = QualityFilter(QUALITY, Removals(tmp_path, "filters"))
    assert [document.id for document in step.run(iter(documents), rank=2)] == ["0", "3"]
    removed = read_removed(tmp_path)
    assert removed.counts == {"too long": 1, "too short": 1}
    assert removed.characters["too short"] == 2
    assert removed.examples["too short"] == ["짧다"]
    by_length = QualityFilter(QUALITY, is_length_only=True)
    assert [document.id for document in by_length.run([Document(text="가 " * 40, id="a")])] == ["a"]
