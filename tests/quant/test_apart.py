"""Calls in a process of their own: what comes back, and what does not."""

import os
from pathlib import Path

import pytest

from malmoi.errors import CheckpointError
from quant.apart import EndedError, call


def test_what_a_function_returns_comes_back() -> None:
    assert call("os:getpid", environment={}) != os.getpid()
    assert call("os.path:join", "a", "b", environment={}) == "a/b"


def test_what_it_raises_is_raised(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A user's error without a traceback, a bug's with the one over there."""
    with pytest.raises(CheckpointError, match="no such directory"):
        call("malmoi.checkpoint:open_checkpoint", tmp_path / "nowhere", environment={})
    assert not capfd.readouterr().err
    with pytest.raises(ZeroDivisionError):
        call("operator:truediv", 1, 0, environment={})
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("function", "arguments", "how"), [("os:_exit", (3,), "exit 3"), ("os:abort", (), "ended by SIGABRT")]
)
def test_an_end_without_an_answer_is_told(function: str, arguments: tuple[int, ...], how: str) -> None:
    with pytest.raises(EndedError, match=how):
        call(function, *arguments, environment={})


def test_variables_are_given_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALMOI_A", "theirs")
    environment = {"MALMOI_A": "ours", "MALMOI_B": "ours"}
    found = [call("os:getenv", name, environment=environment) for name in environment]
    assert found == ["theirs", "ours"]


class TwoWordsError(Exception):
    """An error of a library that does not think of pickling."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def raise_two_words() -> None:
    raise TwoWordsError("no", "good")


def test_an_error_that_does_not_survive_the_way_comes_in_its_words() -> None:
    with pytest.raises(RuntimeError, match="TwoWordsError: no good"):
        call(f"{__name__}:raise_two_words", environment={})
