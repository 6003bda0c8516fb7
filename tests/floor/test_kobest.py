"""KoBEST from files with its authors' columns."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from malmoi.errors import CorpusError
from malmoi.kobest import questions

BOOLQ = {"ID": "1", "Text": "서울은 수도이다.", "Question": "수도인가?", "Answer": "TRUE"}
COPA = {"ID": "1", "sentence": "비가 왔다.", "question": "결과", "1": "젖었다.", "2": "말랐다.", "Answer": "2"}
HELLASWAG = {"context": "공이 온다.", **{f"choice{n}": f"끝 {n}" for n in range(1, 5)}, "label": "3"}
WIC = {"Target": "배", "SENTENCE1": "[배]를 탔다.", "SENTENCE2": "[배]가 달다.", "ANSWER": "False"}


def write(folder: Path, name: str, rows: list[Mapping[str, str]]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_rows_get_the_names_of_the_hubs_copy(tmp_path: Path) -> None:
    for name, row in (
        ("BoolQ.dev", BOOLQ),
        ("COPA.test", COPA),
        ("HellaSwag.dev", HELLASWAG),
        ("WiC.test", WIC),
    ):
        write(tmp_path, name, [row])
    write(tmp_path, "COPA.dev", [COPA, COPA])  # the test split is there
    assert questions(tmp_path) == {
        "boolq": [{"paragraph": "서울은 수도이다.", "question": "수도인가?", "label": 1}],
        "copa": [
            {
                "premise": "비가 왔다.",
                "question": "결과",
                "alternative_1": "젖었다.",
                "alternative_2": "말랐다.",
                "label": 1,
            }
        ],
        "hellaswag": [{"context": "공이 온다.", **{f"ending_{n}": f"끝 {n}" for n in range(1, 5)}, "label": 3}],
        "wic": [{"word": "배", "context_1": "[배]를 탔다.", "context_2": "[배]가 달다.", "label": 0}],
    }


def test_a_directory_without_files_and_a_file_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"BoolQ\.test\.jsonl\.gz"):
        questions(tmp_path)
    write(tmp_path, "WiC.test", [BOOLQ])
    with pytest.raises(CorpusError, match=r"WiC\.test\.jsonl\.gz.*Target"):
        questions(tmp_path)
