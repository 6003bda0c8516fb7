"""A real malmoi-serve in processes of its own, on a free port of the loopback."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

START_S = 240.0
STOP_S = 60.0


@dataclass
class RunningServer:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path
    log: Path

    def processes(self) -> list[psutil.Process]:
        """The API process and everything it started."""
        api = psutil.Process(self.process.pid)
        return [api, *api.children(recursive=True)]

    def engine_processes(self) -> list[psutil.Process]:
        """vLLM's engine core and worker."""
        return [process for process in self.processes() if process.name().startswith("VLLM::")]

    def wait(self) -> int:
        """The exit code, once the server has ended."""
        return self.process.wait(STOP_S)


@contextmanager
def running_server(
    directory: Path, *arguments: str, options: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Starts `malmoi-serve ARGUMENTS -- OPTIONS`, waits until it answers, and ends it with all it started.

    settings: of vLLM, for the environment; it has none of this process.
    """
    output, log = directory / "stdout", directory / "stderr"
    command = [sys.executable, "-m", "server", *arguments, "--port", "0", "--short-lived", "--", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    environment |= settings or {}
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
    try:
        url = _wait_for_url(process, output, log)
        yield RunningServer(process, url, output, log)
    finally:
        family = [psutil.Process(process.pid)] if process.poll() is None else []
        family += [child for parent in family for child in parent.children(recursive=True)]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        for left in psutil.wait_procs(family, timeout=10)[1]:
            left.kill()


def _wait_for_url(process: subprocess.Popen[bytes], output: Path, log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", output.read_text())
        if found:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no server: exit {process.poll()}\n{log.read_text()[-4000:]}")


def wait_until_gone(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those still running (not zombies) after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        left = [process for process in processes if _is_running(process)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
