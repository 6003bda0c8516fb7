"""How much memory is free."""

from pathlib import Path
from typing import Final

GIB: Final = 1 << 30
CGROUP_FILES: Final = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of version 2 and 1: folder, limit, use, and in memory.stat the page cache in it, given back on demand."""


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes this process tree may still take: free memory of the machine, or of its container."""
    available = _numbers(root / "proc/meminfo")["MemAvailable"] * 1024
    for folder, limit, used, cache in CGROUP_FILES:
        file = root / folder / limit
        if file.exists() and file.read_text(encoding="ascii").strip() != "max":
            in_use = int((root / folder / used).read_text(encoding="ascii"))
            kept = in_use - _numbers(root / folder / "memory.stat")[cache]
            available = min(available, int(file.read_text(encoding="ascii")) - kept)
    return available


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the name in front of it."""
    lines = map(str.split, file.read_text(encoding="ascii").splitlines())
    return {name.rstrip(":"): int(number) for name, number, *_ in lines}
