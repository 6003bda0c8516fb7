"""How fast vLLM serves a checkpoint: malmoi-serve is started on the loopback, given work, and stopped."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from malmoi.errors import ServeError
from malmoi.speed import Speed, generation_speed
from quant.leash import leashed

NAME: Final = "checked"
START_S, STOP_S = 1800.0, 60.0
URL: Final = re.compile(r"http://127\.0\.0\.1:\d+")


def measure_speed(checkpoint: Path, texts: Sequence[str], *, options: Sequence[str] = ()) -> Speed:
    """What malmoi.speed measures of a server of its own. `options` are further ones for malmoi-serve.

    Raises: ServeError if it does not serve the checkpoint, with its own reason.
    """
    with running_server(checkpoint, options) as url:
        return generation_speed(url, NAME, texts)


@contextmanager
def running_server(checkpoint: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """The address of a malmoi-serve of its own, which is ended on leaving.

    Raises: ServeError if it ends before it answers.
    """
    command = [sys.executable, "-P", "-m", "server", str(checkpoint), "--port", "0", "--name", NAME, *options]
    with tempfile.TemporaryDirectory(prefix="malmoi-") as folder:
        output, log = Path(folder, "stdout"), Path(folder, "stderr")
        with output.open("wb") as out, log.open("wb") as err:
            process = subprocess.Popen(leashed(command), stdout=out, stderr=err, start_new_session=True)
        try:
            yield _address(process, checkpoint, output, log)
        finally:
            _end(process)


def _address(process: subprocess.Popen[bytes], checkpoint: Path, output: Path, log: Path) -> str:
    """The address that the server prints once it answers."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        found = URL.search(output.read_text(encoding="utf-8"))
        if found:
            return found[0]
        time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), (lines or ["nothing"])[-1])
    raise ServeError(
        checkpoint,
        expected="that malmoi-serve serves it",
        found=f"exit {process.poll()}, having said: {said}",
        next_step="leave --serve out to compare without it, or start malmoi-serve to see all it says",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server; its engine ends with it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
