"""Pages of the documentation, and who follows them: the standard library only, for a clone without anything."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

FENCED: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVERS: Final = (".venv/bin/malmoi-serve ", "make serve")
"""Commands that go on until they are stopped; they print their address once they answer."""
ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:\d+")
START_S: Final = 1800.0
STOP_S: Final = 90.0


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; those in bash and python are to be run as they are written."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """A shell's commands, each on one line."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page: Path) -> Iterator[Block]:
    """Each fenced block, from the top."""
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        yield Block(language=found[1], text=found[2], line=text.count("\n", 0, found.start()) + 1)


class Follower:
    """Runs blocks as a reader would who has a terminal for servers and another for all else.

    A server is left running until the next one, or make, is started, or the end.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Follower":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._stop()
        return False

    def run(self, block: Block) -> str:
        """What a block prints. Raises CalledProcessError where a command of it fails."""
        if block.language == "python":
            return self._run([".venv/bin/python", "-c", block.text])
        *others, last = block.commands
        if last.startswith("make "):
            self._stop()
        if not last.startswith(SERVERS):
            return self._run(["bash", "-euo", "pipefail", "-c", block.text])
        if others:
            self._run(["bash", "-euo", "pipefail", "-c", "\n".join(others)])
        return self._serve(last)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=self._folder, stdout=subprocess.PIPE, text=True)
        sys.stdout.write(done.stdout)
        done.check_returncode()
        return done.stdout

    def _serve(self, command: str) -> str:
        self._stop()
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self._folder, stdout=output, start_new_session=True
            )
            deadline = time.monotonic() + START_S
            while self._server.poll() is None and time.monotonic() < deadline:
                printed = os.pread(output.fileno(), 1 << 20, 0).decode("utf-8", "replace")
                if ADDRESS.search(printed):
                    return printed
                time.sleep(0.5)
        raise AssertionError(f"{command}: no address was printed; exit {self._server.poll()}")

    def _stop(self) -> None:
        """As Ctrl-C does."""
        if self._server is not None and self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGINT)
            self._server.wait(STOP_S)
        self._server = None
