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
    """Of the minute before the repeat, or the start: what else the machine was doing, and the run before."""

    def at(self, streams: int) -> Load:
        """The load of that many streams."""
        return next(load for load in self.loads if load.streams == streams)


def measure(part: Part, pair: Pair, repeats: int, tokenizer: Path, raw: Path) -> Iterator[Run]:
    """Every run of a part. Logs go to `raw`.

    Raises: ServeError if a server does not start, or a request fails.
    """
    how = _taking_turns if part == "overhead" else _started_afresh
    return how(part, pair, repeats, tokenizer, raw)


def _started_afresh(part: Part, pair: Pair, repeats: int, tokenizer: Path, raw: Path) -> Iterator[Run]:
    """Each run is a start of its own, one server at a time."""
    for repeat, contender in in_order(pair, repeats):
        load_average = os.getloadavg()[0]
        name = f"{part}-{repeat}-{contender.name}"
        with servers.running(contender, raw / f"{name}.log") as server:
            loads = [
                load.apply(server, contender, tokenizer, streams, num_requests, raw / f"{name}-{streams}.json")
                for streams, num_requests in NUM_REQUESTS[part].items()
            ]
            run = _run(part, repeat, contender, server, loads, load_average)
        yield run


def _taking_turns(part: Part, pair: Pair, repeats: int, tokenizer: Path, raw: Path) -> Iterator[Run]:
    """Both servers are started once and take turns at each load.

    So what is compared lies seconds apart and not minutes, in which a machine can change by more than what
    is to be measured.
    """
    with servers.taking_turns(pair, raw, part) as started:
        for repeat in range(repeats):
            load_average = os.getloadavg()[0]
            done: dict[str, list[Load]] = {contender.name: [] for contender in pair}
            for turn, (streams, num_requests) in enumerate(NUM_REQUESTS[part].items(), repeat):
                for contender in pair if turn % 2 == 0 else reversed(pair):
                    out = raw / f"{part}-{repeat}-{contender.name}-{streams}.json"
                    with servers.awake(started[contender.name]) as server:
                        one = load.apply(server, contender, tokenizer, streams, num_requests, out)
                    done[contender.name].append(one)
            for contender in pair if repeat % 2 == 0 else reversed(pair):
                yield _run(part, repeat, contender, started[contender.name], done[contender.name], load_average)


def in_order(contenders: Sequence[Contender], repeats: int) -> Iterator[tuple[int, Contender]]:
    """Every repeat's contenders, the one that was last coming first in the next."""
    for repeat in range(repeats):
        for contender in contenders if repeat % 2 == 0 else reversed(contenders):
            yield repeat, contender


def _run(
    part: Part, repeat: int, contender: Contender, server: Running, loads: Sequence[Load], load_average: float
) -> Run:
    return Run(
        part=part,
        repeat=repeat,
        name=contender.name,
        ready_s=server.ready_s,
        resident_bytes=processes.resident_bytes(processes.tree(server.pid)),
        loads=tuple(loads),
        load_average=load_average,
    )
