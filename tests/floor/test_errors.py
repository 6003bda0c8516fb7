"""How a command ends."""

import subprocess
import sys

import pytest

from malmoi.errors import MalmoiError, reported_in_one_line


def run(statement: str) -> subprocess.CompletedProcess[str]:
    program = f"from malmoi.errors import *\nwith reported_in_one_line():\n    {statement}"
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)


def test_users_error_is_one_line_and_exit_2() -> None:
    ended = run("raise MalmoiError('a.txt:3', expected='b', found='c\\nd', next_step='do e')")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: a.txt:3: expected b, found c d; do e\n"


def test_engine_that_died_is_nothing_for_the_user_to_mend() -> None:
    ended = run("raise EngineError('engine', expected='a', found='b', next_step='c')")
    assert (ended.returncode, ended.stderr) == (1, "error: engine: expected a, found b; c\n")


def test_our_bug_keeps_its_traceback_and_exits_1() -> None:
    ended = run("raise ValueError('x')")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_interrupt_has_no_traceback() -> None:
    ended = run("raise KeyboardInterrupt")
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


def test_success_passes_through() -> None:
    with reported_in_one_line():
        pass
    with pytest.raises(MalmoiError):
        raise MalmoiError("x", expected="a", found="b", next_step="c")
