"""What the numbers were measured on."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from malmoi.hardware import cpu_cores, cpu_model

GIB = 1 << 30
BUSY = 0.5
"""Load average of the minute before, from which on the numbers are in doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, its software, and the moment."""

    date: str
    commit: str
    cpu_model: str
    cores: int
    memory_gib: float
    versions: str
    load_average: str
    """Of 1, 5 and 15 minutes."""

    def heading(self, command: str, *, is_timed: bool = True) -> str:
        """What stands above a benchmark's tables: what was run, when, and on what.

        is_timed: whether other work on the machine puts its numbers in doubt.
        """
        is_busy = is_timed and float(self.load_average.split()[0]) >= BUSY
        warning = (
            " **The machine was busy with something else: repeat this on a quiet one.**" if is_busy else ""
        )
        return (
            f"`{command}`, {self.date}, commit {self.commit}.\n\n"
            f"{self.cpu_model}, {self.cores} cores, {self.memory_gib:.1f} GiB; {self.versions}. "
            f"Load average before: {self.load_average}.{warning}"
        )


def this_machine(*packages: str) -> Machine:
    """This machine, now, with the versions of `packages`."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        cpu_model=cpu_model(),
        cores=cpu_cores(),
        memory_gib=memory_bytes / GIB,
        versions=", ".join([f"Python {platform.python_version()}", *map(_versioned, packages)]),
        load_average=" ".join(f"{load:.2f}" for load in os.getloadavg()),
    )


def _commit() -> str:
    git = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    described = subprocess.run(git, capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
