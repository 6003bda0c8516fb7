"""What numbers were measured on."""

import os
from pathlib import Path


def cpu_model() -> str:
    """As the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def cpu_cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))
