"""One run: a fresh start of one server and the loads on it; and in which order the runs come."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve_overhead import load, processes, servers
from benchmarks.serve_overhead.load import Load
from benchmarks.serve_overhead.servers import Contender, Name, Part

STREAMS: dict[Part, tuple[int, ...]] = {"overhead": (1, 16), "out-of-the-box": (1, 4, 16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one fresh start of one server measured."""

    part: Part
    repeat: int
    name: Name
    ready_s: float
    resident_bytes: int
    """Of the whole process tree after the loads; pages that its processes share count once for each."""
    loads: tuple[Load, ...]
    load_average: float
    """Of the minute before the start: what else the machine was doing, and the run before."""

    def at(self, streams: int) -> Load:
        """The load of that many streams."""
        return next(load for load in self.loads if load.streams == streams)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A run to come."""

    part: Part
    repeat: int
    contender: Contender


def plan(pairs: Mapping[Part, tuple[Contender, Contender]], repeats: int) -> Iterator[Planned]:
    """Every run, part by part, in the order stock, malmoi, malmoi, stock, stock, ..."""
    for part, pair in pairs.items():
        for repeat in range(repeats):
            for contender in pair if repeat % 2 == 0 else reversed(pair):
                yield Planned(part=part, repeat=repeat, contender=contender)


def measure(planned: Planned, tokenizer: Path, raw: Path) -> Run:
    """Starts the server, loads it with each number of streams in turn, and ends it. Logs go to `raw`.

    Raises: ServeError if the server does not start, or a request fails.
    """
    part, contender = planned.part, planned.contender
    name = f"{part}-{planned.repeat}-{contender.name}"
    load_average = os.getloadavg()[0]
    with servers.running(contender, raw / f"{name}.log") as server:
        loads = tuple(
            load.apply(server, contender, tokenizer, streams, raw / f"{name}-{streams}.json")
            for streams in STREAMS[part]
        )
        resident_bytes = processes.resident_bytes(processes.tree(server.pid))
    return Run(
        part=part,
        repeat=planned.repeat,
        name=contender.name,
        ready_s=server.ready_s,
        resident_bytes=resident_bytes,
        loads=loads,
        load_average=load_average,
    )
