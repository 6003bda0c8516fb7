import subprocess
import sys
from pathlib import Path

import pytest

from train.__main__ import main


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "train", *arguments], capture_output=True, text=True)


def test_help_lists_the_commands_and_loads_no_torch() -> None:
    code = "import sys, train.__main__; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    result = run("--help")
    assert result.returncode == 0
    assert "demo" in result.stdout


@pytest.mark.parametrize(
    "arguments", [(), ("demo",), ("demo", "--out", "x", "--sed", "1"), ("demo", "--out", "x", "--seed", "one")]
)
def test_a_bad_option_exits_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "vocabulary --base {folder} --corpus {file}",
        "corpus --corpus {file}",
        "data --dialogues {file}",
        "rate --dialogues {file} --endpoint http://127.0.0.1:9/v1 --model none",
        "sft --base {folder} --data {file}",
        "evaluate {folder} --korean {file}",
        "compare {folder}",
    ],
)
def test_what_is_read_is_not_written_over(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "하나?", "output": "둘."}\n')
    given = command.format(folder=tmp_path, file=file).split()
    monkeypatch.setattr(sys, "argv", ["malmoi-train", *given, "--out", str(tmp_path), "--overwrite"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "apart from what is read" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_that_exists_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["malmoi-train", "demo", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "--overwrite" in output.err
