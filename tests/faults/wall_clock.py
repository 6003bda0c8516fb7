"""A wall clock that can be stepped, of the processes it is preloaded into; the machine's stays as it is."""

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "wall_clock.so"


class WallClock:
    """`step` is seen at once by every process started within `preloaded`."""

    def __init__(self, directory: Path) -> None:
        self.library = directory / LIBRARY
        self._shift = directory / "shift"
        self.step(0)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", str(SOURCE), "-o", str(self.library)], check=True)

    def step(self, ahead_s: int) -> None:
        """From now on it shows the true time and so many seconds."""
        with self._shift.open("r+b" if self._shift.exists() else "wb") as file:
            file.write(struct.pack("l", ahead_s))

    @contextmanager
    def preloaded(self) -> Iterator[None]:
        """Into processes that are started within the block."""
        with pytest.MonkeyPatch.context() as patch:
            given = os.environ.get("LD_PRELOAD")
            patch.setenv("LD_PRELOAD", ":".join(filter(None, [str(self.library), given])))
            patch.setenv("WALL_CLOCK_SHIFT", str(self._shift))
            yield
