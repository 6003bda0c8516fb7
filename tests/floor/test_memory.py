from pathlib import Path

import pytest

from malmoi.memory import available_memory_bytes

CGROUPS = {
    "no container": {},
    "version 2": {
        "memory.max": "5000000\n",
        "memory.current": "4000000\n",
        "memory.stat": "anon 2500000\ninactive_file 1000000\n",
    },
    "version 2, no limit": {"memory.max": "max\n"},
    "version 1": {
        "memory/memory.limit_in_bytes": "5000000\n",
        "memory/memory.usage_in_bytes": "4000000\n",
        "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 1000000\n",
    },
    "version 1, no limit": {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "4000000\n",
        "memory/memory.stat": "total_inactive_file 1000000\n",
    },
}


@pytest.mark.parametrize("name", CGROUPS)
def test_memory_of_the_container_counts_its_page_cache_as_free(tmp_path: Path, name: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  8000 kB\nHugePages_Total:  0\n")
    for file, text in CGROUPS[name].items():
        path = tmp_path / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    free = 8000 * 1024 if name.startswith("no ") or "no limit" in name else 2000000
    assert available_memory_bytes(tmp_path) == free
