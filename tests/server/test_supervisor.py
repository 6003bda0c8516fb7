"""What is started again, how often, and what is left behind: nothing. The servers here are short scripts."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.running_server import wait_until_gone

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
PAUSE_S = 0.01
PREFACE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from server.orphan import die_with_supervisor, tell_supervisor
starts = Path(sys.argv[1])
starts.open("a").write(f"{os.getpid()}\\n")
num_starts = len(starts.read_text().split())
"""


@dataclass
class Supervised:
    """A supervisor in a process of its own, and the ids of the servers it has started."""

    process: subprocess.Popen[str]
    starts: Path

    def pids(self) -> list[int]:
        return [int(line) for line in self.starts.read_text().split()] if self.starts.exists() else []

    def wait_until_up(self) -> psutil.Process:
        """The first server, once it has touched `up`."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.starts.with_name("up").exists():
            assert time.monotonic() < deadline, "it never came up"
            time.sleep(0.01)
        return psutil.Process(self.pids()[0])

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


@contextmanager
def supervised(directory: Path, server: str, max_restarts: int = 3) -> Iterator[Supervised]:
    script, starts = directory / "server_script.py", directory / "starts"
    script.write_text(PREFACE + textwrap.dedent(server))
    code = (
        "import sys; from server.supervisor import Supervisor; "
        f"sys.exit(Supervisor([sys.executable, *sys.argv[1:]], {max_restarts}, {PAUSE_S}).run())"
    )
    command = [sys.executable, "-c", code, str(script), str(starts)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield Supervised(process, starts)
        finally:
            left = [psutil.Process(process.pid)] if process.poll() is None else []
            left += [child for parent in left for child in parent.children(recursive=True)]
            for each in left:
                each.kill()


def test_server_that_dies_is_started_again_so_often_and_no_more(tmp_path: Path) -> None:
    with supervised(tmp_path, "tell_supervisor(); sys.exit(3)", max_restarts=2) as running:
        assert running.wait() == 3
        assert len(running.pids()) == 3


def test_server_that_never_answered_is_not_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path, "sys.exit(2)") as running:
        assert running.wait() == 2
        assert len(running.pids()) == 1


def test_start_that_fails_after_one_that_answered_is_tried_again(tmp_path: Path) -> None:
    server = """
        if num_starts == 1: tell_supervisor(); os.kill(os.getpid(), signal.SIGKILL)
        sys.exit({2: 2, 3: 0}[num_starts])
    """
    with supervised(tmp_path, server) as running:
        assert running.wait() == 0
        assert len(running.pids()) == 3


def test_killed_for_good_is_128_and_the_signal(tmp_path: Path) -> None:
    with supervised(tmp_path, "tell_supervisor(); os.kill(os.getpid(), signal.SIGKILL)", 1) as running:
        assert running.wait() == 128 + signal.SIGKILL


def test_signal_reaches_the_server_and_ends_it_for_good(tmp_path: Path) -> None:
    server = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        tell_supervisor()
        starts.with_name("up").touch()
        while True: time.sleep(0.01)
    """
    with supervised(tmp_path, server) as running:
        running.wait_until_up()
        running.process.send_signal(signal.SIGTERM)
        assert running.wait() == 0
        assert len(running.pids()) == 1


def test_what_a_server_leaves_behind_is_gone_before_the_next_starts(tmp_path: Path) -> None:
    """In a session of its own, stopped, and with a child: as an engine that hangs."""
    server = """
        left = starts.with_name("left")
        if num_starts == 1:
            sleep = "import os, time; os.fork(); print(flush=True); time.sleep(600)"
            command = [sys.executable, "-c", sleep]
            child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
            child.stdout.readline(), child.stdout.readline()
            os.killpg(child.pid, signal.SIGSTOP)
            left.write_text(str(child.pid))
            tell_supervisor()
            os._exit(1)
        try:
            os.killpg(int(left.read_text()), 0)
        except ProcessLookupError:
            sys.exit(0)
        sys.exit(9)
    """
    with supervised(tmp_path, server) as running:
        assert running.wait() == 0
        assert len(running.pids()) == 2


def test_server_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    server = """
        die_with_supervisor()
        starts.with_name("up").touch()
        time.sleep(600)
    """
    with supervised(tmp_path, server) as running:
        server_process = running.wait_until_up()
        running.process.kill()
        assert wait_until_gone([server_process], PATIENCE_S) == []
