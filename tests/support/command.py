"""malmoi-train in this process, for what ends before any work begins."""

import sys

import pytest

from train.__main__ import main


def mistake(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command, which must end with exit code 2 and one line; that line."""
    monkeypatch.setattr(sys, "argv", ["malmoi-train", *arguments])
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line
