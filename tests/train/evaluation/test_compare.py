"""Results side by side: what is best, what is marked, what is refused, and the page as a whole."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from malmoi.errors import MalmoiError, OutputError
from tests.train.evaluation.results import SCORE, answers, create_result
from train.evaluation.compare import Comparison, Line, compare
from train.evaluation.page import markdown, run
from train.evaluation.published import find_published
from train.evaluation.results import Chat, Score

TASK = ("kobest_boolq", 0)
ACCURACY = Line("benchmark", "kobest_boolq", "acc", 0)
KOREAN = Line("language", "korean", "bits_per_byte")
GOLDEN = Path(__file__).parent / "comparison.md"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Half right; nearly all right, and better at law only; two thirds right, of one task and no language."""
    folder = tmp_path_factory.mktemp("results")
    documents = [60.0 + place % 7 for place in range(60)]
    better = [value if place % 2 else value * 0.9 for place, value in enumerate(documents)]
    tasks = {TASK: answers(30), ("kobest_boolq", 5): answers(36), ("kobest_wic", 0): answers(31)}
    tuned = {TASK: answers(54), ("kobest_boolq", 5): answers(36), ("kobest_wic", 0): answers(29)}
    chat = Chat(
        num_prompts=64,
        prompt_digest="a" * 64,
        eos_rate=0.5,
        loop_rate=0.25,
        korean_share=None,
        mean_characters=20.0,
        mean_tokens=16.0,
    )
    tuned_chat = replace(chat, eos_rate=1.0, loop_rate=0.0, mean_characters=12.0)
    note = "kobest_boolq was asked of its dev split."
    return [
        create_result(folder / "base", "base", answered=tasks, nats=documents, chat=chat, notes=(note,)),
        create_result(folder / "tuned", "tuned", answered=tuned, nats=better, chat=tuned_chat, notes=(note,)),
        create_result(folder / "nf4", "nf4", answered={TASK: answers(40)}, score=replace(SCORE, is_chat=True)),
    ]


@pytest.fixture(scope="module")
def comparison(folders: list[Path]) -> Comparison:
    return compare(folders)


def test_the_best_is_known_and_the_worst_is_not_marked_as_such(comparison: Comparison) -> None:
    assert comparison.best(ACCURACY) == {1}
    assert comparison.best(KOREAN) == {1}  # fewer bits
    assert comparison.best(Line("benchmark", "kobest_boolq", "acc", 5)) == set()  # alike
    assert comparison.best(Line("language", "korean", "byte_share")) == set()


def test_differences_are_tested_on_the_items_and_their_domains(comparison: Comparison) -> None:
    base, tuned, nf4 = comparison.lines[ACCURACY]
    assert base is not None and tuned is not None and nf4 is not None
    assert base.difference is None
    assert tuned.difference is not None and tuned.difference.is_significant
    assert tuned.difference.value == pytest.approx(24 / 60)
    assert nf4.difference is not None and nf4.difference.value == pytest.approx(10 / 60)
    law, news = (
        comparison.lines[Line("language", "korean", "bits_per_byte", None, name)][1] for name in ("law", "news")
    )
    assert law is not None and law.difference is not None and law.difference.is_significant
    assert news is not None and news.difference is not None and news.difference.p == 1
    assert comparison.lines[KOREAN][2] is None


def test_answers_to_other_prompts_are_not_compared(folders: list[Path], tmp_path: Path) -> None:
    chat = compare(folders).results[0].found.chat
    assert chat is not None
    tasks = {TASK: answers(30)}
    other = create_result(tmp_path / "o", "o", answered=tasks, chat=replace(chat, prompt_digest="b" * 64))
    with pytest.raises(MalmoiError, match=r"prompt_digest aaa.*found other questions .*bbb"):
        compare([folders[0], other])


def test_the_baseline_may_be_another(folders: list[Path]) -> None:
    found = compare(folders, baseline="tuned").lines[ACCURACY][0]
    assert found is not None and found.difference is not None
    assert found.difference.value == pytest.approx(-24 / 60)


def test_too_few_questions_are_compared_and_not_tested(tmp_path: Path) -> None:
    one = create_result(tmp_path / "one", "one", answered={TASK: answers(0)[:19]})
    other = create_result(tmp_path / "other", "other", answered={TASK: answers(19)[:19]})
    compared = compare([one, other])
    assert compared.best(ACCURACY) == {1}
    assert compared.num_tested == 0
    assert "▲" not in markdown(compared, ())


def test_a_result_alone_has_no_best_and_no_baseline(folders: list[Path]) -> None:
    page = markdown(compare(folders[:1]), find_published(["eeve-10.8b"]))
    assert "**0.5000**" not in page
    assert "(baseline)" not in page
    assert "0.8568 ‡" in page


def test_a_published_number_of_the_same_prompts_and_split_has_no_mark(tmp_path: Path) -> None:
    folder = create_result(
        tmp_path / "one", "one", answered={TASK: answers(10)}, score=replace(SCORE, prompts="polyglot")
    )
    assert "| 0.3552 |" in markdown(compare([folder]), find_published(["polyglot-ko-1.3b"]))


def test_a_split_that_nobody_states_is_not_the_same_split(tmp_path: Path) -> None:
    folder = create_result(
        tmp_path / "one", "one", answered={TASK: answers(10)}, score=replace(SCORE, split=None)
    )
    assert "0.8568 ‡" in markdown(compare([folder]), find_published(["eeve-10.8b"]))


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (replace(SCORE, prompt_digest="other"), "prompt_digest 0123456789abcdef"),
        (replace(SCORE, prompts="polyglot"), "prompts harness"),
        (replace(SCORE, version="2.0"), r"version 1\.0"),
        (replace(SCORE, split="validation"), "split test"),
    ],
)
def test_other_questions_are_refused(folders: list[Path], tmp_path: Path, score: Score, told: str) -> None:
    other = create_result(tmp_path / "other", "other", answered={TASK: answers(10)}, score=score)
    with pytest.raises(
        MalmoiError, match=rf"other: expected kobest_boolq with 0 examples as in .*base \({told}\)"
    ):
        compare([folders[0], other])


def test_other_rows_and_documents_are_refused(folders: list[Path], tmp_path: Path) -> None:
    """The same number of them, and the same prompts by what is recorded."""
    fewer = create_result(tmp_path / "fewer", "fewer", answered={TASK: answers(10)[:50]})
    with pytest.raises(MalmoiError, match=r"num_rows 60.*found other questions.*num_rows 50"):
        compare([folders[0], fewer])
    shuffled = create_result(tmp_path / "shuffled", "shuffled", answered={TASK: answers(10)})
    file = shuffled / "items" / "kobest_boolq-0.jsonl"
    file.write_text(
        "".join(reversed(file.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8"
    )
    with pytest.raises(MalmoiError, match=r"the same in number.*--seed"):
        compare([folders[0], shuffled])
    read = create_result(tmp_path / "read", "read", answered={}, nats=[50.0] * 30)
    with pytest.raises(MalmoiError, match=r"korean as in .*num_bytes 6000.*num_bytes 3000"):
        compare([folders[0], read])


def _no_results(folder: Path) -> None:
    (folder / "results.json").unlink()


def _no_answers(folder: Path) -> None:
    (folder / "items" / "kobest_boolq-0.jsonl").unlink()


def _cut_answers(folder: Path) -> None:
    file = folder / "items" / "kobest_boolq-0.jsonl"
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


def _later_format(folder: Path) -> None:
    record = json.loads((folder / "results.json").read_text(encoding="utf-8")) | {"format": 2}
    (folder / "results.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (_no_results, "spoilt: expected what `malmoi-train evaluate` wrote, found .*No such file"),
        (_no_answers, r"kobest_boolq-0\.jsonl.*No such file"),
        (_cut_answers, r"kobest_boolq-0\.jsonl: expected 60 lines, found 59"),
        (_later_format, "spoilt: .* found .*format 2, not 1"),
    ],
)
def test_what_is_no_whole_result_is_refused(tmp_path: Path, spoilt: Callable[[Path], None], told: str) -> None:
    folder = create_result(tmp_path / "spoilt", "spoilt", answered={TASK: answers(10)})
    spoilt(folder)
    with pytest.raises(MalmoiError, match=told):
        compare([folder])


def test_names_are_told_apart(folders: list[Path]) -> None:
    with pytest.raises(MalmoiError, match=r"DIR: expected .* found no directory"):
        compare([])
    with pytest.raises(MalmoiError, match="expected a name of its own, found base"):
        compare([folders[0], folders[0]])
    with pytest.raises(MalmoiError, match=r"--baseline: expected one of base, tuned, nf4, found other;"):
        compare(folders, baseline="other")


def test_the_page_is_the_golden_one(folders: list[Path], tmp_path: Path) -> None:
    """Written by `run`; the plots beside it are pictures of the size they should have."""
    out = tmp_path / "comparison"
    run(folders, out, published=["polyglot-ko-1.3b", "eeve-10.8b", "korae-13b", "kollama2"])
    assert (out / "comparison.md").read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")
    for name in ("language.png", "benchmarks.png"):
        content = (out / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">I", content[16:20])[0] in (800, 1200)  # pixels across
    with pytest.raises(OutputError):
        run(folders, out)


def test_nothing_is_written_of_what_is_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(MalmoiError):
        run(folders, tmp_path / "out", published=["no such model"])
    with pytest.raises(MalmoiError):
        run([folders[0], folders[0]], tmp_path / "out")
    assert not list(tmp_path.iterdir())
