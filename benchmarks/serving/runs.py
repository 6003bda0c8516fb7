"""Runs: the loads on a server, how often it is started for them, and in which order they come."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.serving import load, servers
from benchmarks.serving.load import Load
from benchmarks.serving.servers import Contender, Part, Running

NUM_REQUESTS: dict[Part, dict[int, int]] = {
    "overhead": {1: 64, 8: 256, 32: 512},
    "out-of-the-box": {1: 32, 4: 64, 16: 192},
}
"""Requests of each measured load, by streams."""
Pair = tuple[Contender, Contender]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the loads on one server measured, in one repeat."""

    part: Part
    repeat: int
    name: str
    ready_s: float
    resident_bytes: int
    """Of the whole process tree after the loads; pages that its processes share count once for each."""
    loads: tuple[Load, ...]
    load_average: float
    """Of the minute before the start: what else the machine was doing, and the run before."""

    def at(self, streams: int) -> Load:
        """The load of that many streams."""
        return next(load for load in self.loads if load.streams == streams)


def measure(part: Part, pair: Pair, repeats: int, tokenizer: Path, raw: Path) -> Iterator[Run]:
    """Every run of a part, as `in_order` has them. Logs go to `raw`.

    Out of the box each run is a fresh start, one server at a time. For the overhead both are started once and
    take turns, so that the two loads of a repeat lie seconds apart and not minutes, in which what else the
    machine does changes by more than what is to be measured.

    Raises: ServeError if a server does not start, or a request fails.
    """
    with servers.taking_turns(pair if part == "overhead" else (), raw, part) as started:
        for repeat, contender in in_order(pair, repeats):
            place = raw / f"{part}-{repeat}-{contender.name}"
            if contender.name in started:
                turn = servers.awake(started[contender.name])
            else:
                turn = servers.running(contender, place.with_name(f"{place.name}.log"))
            with turn as server:
                run = _load(part, repeat, contender, server, tokenizer, place)
            yield run


def in_order(contenders: Sequence[Contender], repeats: int) -> Iterator[tuple[int, Contender]]:
    """Every repeat's contenders, the one that was last coming first in the next."""
    for repeat in range(repeats):
        for contender in contenders if repeat % 2 == 0 else reversed(contenders):
            yield repeat, contender


def _load(part: Part, repeat: int, contender: Contender, server: Running, tokenizer: Path, raw: Path) -> Run:
    load_average = os.getloadavg()[0]
    loads = tuple(
        load.apply(
            server, contender, tokenizer, streams, num_requests, raw.with_name(f"{raw.name}-{streams}.json")
        )
        for streams, num_requests in NUM_REQUESTS[part].items()
    )
    return Run(
        part=part,
        repeat=repeat,
        name=contender.name,
        ready_s=server.ready_s,
        resident_bytes=processes.resident_bytes(processes.tree(server.pid)),
        loads=loads,
        load_average=load_average,
    )
