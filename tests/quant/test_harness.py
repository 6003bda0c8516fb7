"""KoBEST asked of a real model through the harness."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from malmoi.kobest import questions
from quant.harness import kobest_scores
from quant.loading import load_model, load_tokenizer
from tests.support.exports import create_grown_chat

HELLASWAG = {"context": "공이 온다.", **{f"choice{n}": f"끝 {n}" for n in range(1, 5)}, "label": "3"}
REVIEWS = ("좋아요", "별로네요", "정말 마음에 들어요", "오늘은 날씨가 맑고", "우유를 샀습니다", "싫어요 책을")


def write(folder: Path, name: str, rows: list[Mapping[str, str]]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_scores_are_those_of_likelihoods_taken_by_hand(tmp_path: Path) -> None:
    folder = create_grown_chat(tmp_path / "chat", dtype="float32")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    likelier = [
        _likelier(model, tokenizer, f"문장: {review} 긍부정:", (" 부정", " 긍정")) for review in REVIEWS
    ]
    labels = [1, 0, 1, 1, 0, 0]
    rows = [{"Text": review, "Label": str(label)} for review, label in zip(REVIEWS, labels, strict=True)]
    write(tmp_path, "SentiNeg.test", rows)  # type: ignore[arg-type]
    write(tmp_path, "HellaSwag.dev", [HELLASWAG])
    found = kobest_scores(model, tokenizer, questions(tmp_path))
    assert found["sentineg"] == pytest.approx(_macro_f1(labels, likelier))
    ending = _likelier(model, tokenizer, "문장: 공이 온다.", tuple(f" 끝 {number}" for number in range(1, 5)))
    assert found["hellaswag"] == (1 if ending == 3 else 0)


def _likelier(model, tokenizer, context: str, choices: tuple[str, ...]) -> int:  # type: ignore[no-untyped-def]
    scores = []
    given = tokenizer(context, add_special_tokens=False)["input_ids"]
    for choice in choices:
        ids = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(float(logp[place - 1, ids[place]]) for place in range(len(given), len(ids))))
    return scores.index(max(scores))


def _macro_f1(labels: list[int], predicted: list[int]) -> float:
    scores = []
    for kind in sorted({*labels, *predicted}):
        hits = sum(label == guess == kind for label, guess in zip(labels, predicted, strict=True))
        scores.append(2 * hits / (labels.count(kind) + predicted.count(kind)))
    return sum(scores) / len(scores)
