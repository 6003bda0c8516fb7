import gzip
from pathlib import Path

import pytest

from malmoi.errors import CorpusError
from malmoi.json_lines import json_lines


def test_rows_come_with_their_lines_packed_or_not(tmp_path: Path) -> None:
    content = '{"a": "가"}\n{"a": 2}\n'.encode()
    (tmp_path / "plain.jsonl").write_bytes(content)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(content))
    for file in tmp_path.iterdir():
        assert list(json_lines(file)) == [(1, {"a": "가"}), (2, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b'{"a": 1}\n{"a": \n', r"\.jsonl\.gz:2: .*JSONDecodeError", id="broken JSON"),
        pytest.param(b"[1]\n", r"\.jsonl\.gz:1: .*list, which is no row", id="no object"),
        pytest.param(b'{"a": "\xff"}\n', r"\.jsonl\.gz:1: .*UnicodeDecodeError", id="not UTF-8"),
    ],
)
def test_the_first_line_without_a_row_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(content))
    with pytest.raises(CorpusError, match=expected):
        list(json_lines(file))


def test_a_file_that_breaks_off_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": 1}\n' * 10_000)[:-20])
    with pytest.raises(CorpusError, match="EOFError"):
        list(json_lines(file))
