"""A process tree as /proc shows it: who is in it, its CPU time, its memory."""

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Self

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PARENT, USER_TICKS, SYSTEM_TICKS, RESIDENT_PAGES = 1, 11, 12, 21
"""Places in /proc/PID/stat after the command's name; see proc(5)."""


def tree(root: int) -> list[int]:
    """`root` and all its living descendants."""
    parents = {pid: _stat(pid)[PARENT] for pid in _all_processes()}
    found = [root]
    for parent in found:
        found += [pid for pid, its_parent in parents.items() if its_parent == parent]
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of user and system time that the processes have used so far."""
    return TICK_S * sum(stat[USER_TICKS] + stat[SYSTEM_TICKS] for stat in map(_stat, pids))


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes, added up; pages that they share count once for each."""
    return PAGE_BYTES * sum(_stat(pid)[RESIDENT_PAGES] for pid in pids)


def proportional_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes together; a page that they share counts once (Pss of smaps_rollup)."""
    return sum(map(_proportional_bytes, pids))


def available_bytes() -> int:
    """MemAvailable of this machine."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(meminfo.split("MemAvailable:")[1].split()[0]) * 1024


class _Recorder:
    """Calls `look` every `interval_s` within its block, in a thread, and once more at its end."""

    def __init__(self, look: Callable[[], None], interval_s: float) -> None:
        self._look = look
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _record(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(self._interval_s)
            self._look()


class CpuRecorder(_Recorder):
    """Records the CPU time of a server's API process and of the processes below it, a few times a second.

    The load generator's own clock then says which part of the record is the load (both are CLOCK_MONOTONIC).
    """

    INTERVAL_S = 0.1

    def __init__(self, root: int) -> None:
        super().__init__(self._add, self.INTERVAL_S)
        self._api, *self._engine = tree(root)
        self._times: list[float] = []
        self._api_s: list[float] = []
        self._engine_s: list[float] = []

    def spent_s(self, start: float, end: float) -> tuple[float, float]:
        """CPU seconds of the API process and of the engine's, between two moments of time.perf_counter."""
        api, engine = (self._at(end, seconds) - self._at(start, seconds) for seconds in self._columns())
        return api, engine

    def _columns(self) -> tuple[list[float], list[float]]:
        return self._api_s, self._engine_s

    def _at(self, moment: float, seconds: list[float]) -> float:
        place = min(max(bisect_left(self._times, moment), 1), len(self._times) - 1)
        before, after = self._times[place - 1], self._times[place]
        share = (moment - before) / (after - before)
        return seconds[place - 1] + share * (seconds[place] - seconds[place - 1])

    def _add(self) -> None:
        self._times.append(time.perf_counter())
        self._api_s.append(cpu_s([self._api]))
        self._engine_s.append(cpu_s(self._engine))


class MemoryRecorder(_Recorder):
    """Looks every `interval_s` at the memory of a process and of all below it, a shared page counting once."""

    def __init__(self, root: int, interval_s: float) -> None:
        super().__init__(self._add, interval_s)
        self._root = root
        self._seen: list[tuple[float, int]] = []

    def peak_bytes(self) -> int:
        """The most that was seen; 0 if nothing was."""
        return max((num_bytes for _, num_bytes in self._seen), default=0)

    def last_minute_bytes(self) -> int:
        """The mean of what was seen in the last minute."""
        since = self._seen[-1][0] - 60
        return round(fmean(num_bytes for at, num_bytes in self._seen if at >= since))

    def _add(self) -> None:
        self._seen.append((time.monotonic(), proportional_bytes(tree(self._root))))


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _proportional_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.split("\nPss:")[1].split()[0]) * 1024 if "\nPss:" in text else 0


def _stat(pid: int) -> list[int]:
    """/proc/PID/stat after the command's name, its state as 0; zeros for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return [0] * (RESIDENT_PAGES + 1)
    return [0, *map(int, text.rpartition(")")[2].split()[1:])]
