"""Commands: malmoi-train in this process, for what ends before any work begins; and others, to be killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.running_server import wait_until_gone
from train.__main__ import main

ROOT = Path(__file__).parents[2]


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


def start(*arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    """The command, one thread in each of its processes."""
    launcher = ["-m", "train"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launcher]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """The command from start to end."""
    process = start(*arguments, processes=processes)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def kill_when(pattern: str, folder: Path, *arguments: str) -> None:
    """Starts the command and kills it, and all that it has started, when a path of that pattern is there."""
    process = start(*arguments)
    while not any(folder.glob(pattern)):
        assert process.poll() is None, f"it was over before {pattern} was seen"
        time.sleep(0.001)
    kill_all(process)


def kill_all(process: subprocess.Popen[str]) -> None:
    """The launcher first: its workers are in sessions of their own and would go on."""
    root = psutil.Process(process.pid)
    for one in (root, *root.children(recursive=True)):
        one.kill()
    process.communicate()


def kill_alone_when(arguments: list[str], is_time: Callable[[], bool]) -> None:
    """Runs a command, and kills it alone; all it started must end by itself."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not is_time():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert process.poll() is None, "it was over before the time came"
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not wait_until_gone(family, 30)
