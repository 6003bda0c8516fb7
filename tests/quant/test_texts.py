"""Every way in which texts and dialogues are published."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from malmoi.chat import Message
from malmoi.errors import CorpusError
from quant.texts import Text, find_files, read_texts

QUESTION, ANSWER = Message("user", "수도는?"), Message("assistant", "서울입니다.")
ROWS: list[tuple[dict[str, object], Text]] = [
    ({"text": "나는 학교에 갔다."}, "나는 학교에 갔다."),
    ({"prompt": "무엇입니까?"}, "무엇입니까?"),
    ({"instruction": "수도는?", "input": "", "output": "서울입니다."}, (QUESTION, ANSWER)),
    ({"instruction": "수도는?", "input": None, "output": "서울입니다.", "text": "틀"}, (QUESTION, ANSWER)),
    (
        {"instruction": "더하라.", "input": "1 2", "output": "3"},
        (Message("user", "더하라. 1 2"), Message("assistant", "3")),
    ),
    ({"instruction": "수도는?"}, (QUESTION,)),
    ({"messages": [QUESTION.as_dict(), ANSWER.as_dict()]}, (QUESTION, ANSWER)),
    (
        {"conversations": [{"from": "human", "value": "수도는?"}, {"from": "gpt", "value": "서울입니다."}]},
        (QUESTION, ANSWER),
    ),
    ({"system": "짧게.", "messages": [QUESTION.as_dict()]}, (Message("system", "짧게."), QUESTION)),
]


def _lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(("row", "text"), ROWS, ids=lambda each: str(each)[:40])
def test_a_row_in_every_form(tmp_path: Path, row: dict[str, object], text: Text) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines([row]))
    assert list(read_texts([str(tmp_path / "a.jsonl")])) == [text]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.parquet"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    rows, texts = [row for row, _ in ROWS[:2]], [text for _, text in ROWS[:2]]
    content = _lines(rows)
    file = tmp_path / name
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".zst"):
        content = zstandard.compress(content)
    elif name == "a.json":
        content = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if name == "a.parquet":
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(
                rows, pyarrow.schema({"text": pyarrow.string(), "prompt": pyarrow.string()})
            ),
            file,
        )
    else:
        file.write_bytes(content)
    assert list(read_texts([str(file)])) == texts


def test_a_text_file_is_a_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("나는 갔다.\n\n  \n바람이 분다.\r\n", encoding="utf-8")
    assert list(read_texts([str(tmp_path / "a.txt")])) == ["나는 갔다.", "바람이 분다."]


def test_directories_and_globs_in_order_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "notes.md"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in find_files([str(tmp_path)])] == ["a.txt", "b.txt"]
    assert [file.name for file in find_files([f"{tmp_path}/b*.txt", str(tmp_path)])] == ["b.txt", "a.txt"]


def test_a_report_of_malmoi_train_is_no_text(tmp_path: Path) -> None:
    for name in ("report.json", "report.md", "train.jsonl"):
        (tmp_path / name).write_text("{}")
    assert [file.name for file in find_files([str(tmp_path)])] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"text": 3}', "text is int"),
        ('{"label": 1, "id": 2}', "label, id"),
        ("[]", "list"),
        ('{"messages": []}', "no list of turns"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "'tool'"),
        ('{"messages": ["x"]}', "no object"),
        ('{"instruction": ["x"]}', "instruction is list"),
        ('{"text": "x"', "delimiter"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str, found: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "좋다"}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match=f"a.jsonl:3: .*{found}"):
        list(read_texts([str(file)]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", b"no gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999)[:-20]),
        ("a.jsonl.zst", b"no zstandard"),
        ("a.parquet", b"no parquet"),
        ("a.txt", "가".encode("euc-kr")),
    ],
    ids=["gzip", "cut gzip", "zstandard", "parquet", "not UTF-8"],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=name):
        list(read_texts([str(tmp_path / name)]))


@pytest.mark.parametrize("name", ["nothing.txt", "*.txt", "a.csv"])
def test_a_path_that_names_no_text_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("text")
    with pytest.raises(CorpusError, match=name.replace("*", r"\*")):
        list(read_texts([str(tmp_path / name)]))


@pytest.mark.parametrize("name", ["a.txt.zst", "a.txt.gz"])
def test_a_file_that_is_cut_off_is_not_whole(tmp_path: Path, name: str) -> None:
    pack = zstandard.compress if name.endswith(".zst") else gzip.compress
    file = tmp_path / name
    file.write_bytes(pack(("가나다라마바사\n" * 1000 + "끝" * 3000).encode())[:-20])
    with pytest.raises(CorpusError, match="expected a whole file, found EOFError"):
        list(read_texts([str(file)]))


def test_all_frames_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.zst"
    file.write_bytes(zstandard.compress("처음\n".encode()) + zstandard.compress("끝\n".encode()))
    assert list(read_texts([str(file)])) == ["처음", "끝"]
