"""Duplicates: found where a comparison of all pairs finds them, and nothing else."""

import json
import random
from itertools import combinations
from pathlib import Path

import pytest
import zstandard
from datatrove.pipeline.readers.jsonl import JsonlReader

from train.corpus.deduplication import MinHash, deduplication
from train.corpus.passes import run_pass
from train.corpus.removals import read_removed

ALIKE = 0.85
APART = 0.3


def deduplicated(folder: Path, files: list[list[str]], *, exact: bool, near: MinHash | None) -> list[str]:
    source = folder / "source"
    source.mkdir(parents=True)
    for number, texts in enumerate(files):
        lines = [json.dumps({"text": text, "id": f"{number}/{place}"}) for place, text in enumerate(texts)]
        (source / f"{number:05d}.jsonl").write_text("\n".join(lines) + "\n")
    passes = deduplication(
        JsonlReader(str(source)), folder / "work", folder / "out", num_tasks=len(files), exact=exact, near=near
    )
    for step in passes:
        run_pass(step, folder / "tasks" / step.name, num_workers=1)
    found = []
    for file in sorted((folder / "out").glob("*")):
        with zstandard.open(file, "rt", encoding="utf-8") as lines_of:
            found += [json.loads(line)["text"] for line in lines_of]
    return found


def shingles(text: str, length: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[place : place + length]) for place in range(len(words) - length + 1)}


def similarity(one: str, other: str, length: int) -> float:
    left, right = shingles(one, length), shingles(other, length)
    return len(left & right) / max(1, len(left | right))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Documents of 80 words, and of some of them copies with one to forty words changed."""
    chance = random.Random(0)
    words = [f"낱말{number}" for number in range(500)]
    originals = [[chance.choice(words) for _ in range(80)] for _ in range(12)]
    found = [" ".join(original) for original in originals]
    for original, num_changed in zip(originals, (0, 1, 1, 2, 5, 10, 40), strict=False):
        copy = list(original)
        for place in chance.sample(range(80), num_changed):
            copy[place] = chance.choice(words)
        found.append(" ".join(copy))
    chance.shuffle(found)
    return found


def test_of_exact_duplicates_one_stays(tmp_path: Path) -> None:
    files = [["가나", "다라", "가나"], ["마바", "바사", "다라"], ["사아"]]
    kept = deduplicated(tmp_path, files, exact=True, near=None)
    assert kept == ["가나", "다라", "마바", "바사", "사아"]
    removed = read_removed(tmp_path / "work" / "removed" / "exact")
    assert removed.counts == {"exact": 2}
    assert removed.examples == {"exact": ["가나", "다라"]}


def test_near_duplicates_are_those_of_all_pairs(tmp_path: Path, texts: list[str]) -> None:
    near = MinHash()
    pairs = list(combinations(sorted(set(texts)), 2))
    alike = [pair for pair in pairs if similarity(*pair, near.words_per_shingle) >= ALIKE]
    between = [pair for pair in pairs if APART < similarity(*pair, near.words_per_shingle) < ALIKE]
    assert len(alike) >= 2
    kept = deduplicated(tmp_path, [texts[:9], texts[9:]], exact=True, near=near)
    assert all((one in kept) + (other in kept) < 2 for one, other in alike)
    num_removed = len(texts) - len(kept)
    num_exact = len(texts) - len(set(texts))
    assert num_exact + len(alike) <= num_removed <= num_exact + len(alike) + len(between)
    following = iter(texts)
    assert all(text in following for text in kept), "the order is as it was"


def test_the_same_texts_give_the_same(tmp_path: Path, texts: list[str]) -> None:
    one, other = (deduplicated(tmp_path / name, [texts], exact=True, near=MinHash()) for name in ("a", "b"))
    assert one == other


def test_case_and_punctuation_are_as_nothing_but_numbers_count(tmp_path: Path) -> None:
    text = "The 제12조 규정에 따라 신청서를 3월까지 제출하여야 하며 이를 어기면 벌금을 낸다"
    files = [[text, text.upper().replace(" ", "! "), text.replace("12", "13")]]
    kept = deduplicated(
        tmp_path, files, exact=True, near=MinHash(words_per_shingle=2, num_bands=2, hashes_per_band=64)
    )
    assert kept == [text, text.replace("12", "13")]
