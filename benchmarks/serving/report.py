"""From runs to tables: medians over repeats with their range, ratios within a repeat, verdicts computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from statistics import median
from typing import Generic, Literal, TypeVar, get_args

from benchmarks.machine import Machine
from benchmarks.serving.load import INPUT_TOKENS, OUTPUT_TOKENS, Load
from benchmarks.serving.runs import NUM_REQUESTS, Run
from benchmarks.serving.saturation import DURATION_S, OVER, TPOT_MS, TTFT_MS, Flood
from benchmarks.serving.servers import MAX_RUNNING, QUEUE_TIMEOUT_S, SHELL_PREFIXES, Contender, Name, Part

GIB = 1 << 30
Repeated = TypeVar("Repeated", Run, Flood)
"""What is measured of a server in a repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a comparison should come to."""

    text: str
    is_met: Callable[[float], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Generic[Repeated]):
    """One line of a table. `compare`: ours / stock, or ours - stock, within each repeat."""

    title: str
    read: Callable[[Repeated], float]
    compare: Literal["ratio", "difference"]
    digits: int = 1
    target: Target | None = None


def throughput(streams: int, target: Target | None = None) -> Metric[Run]:
    """Output tokens per second."""
    return Metric(
        title=f"tokens/s, {_streams(streams)}",
        read=lambda run: run.at(streams).tokens_per_s,
        compare="ratio",
        target=target,
    )


def characters(streams: int) -> Metric[Run]:
    """Characters of the answers per second."""
    return Metric(
        title=f"characters/s, {_streams(streams)}",
        read=lambda run: run.at(streams).characters_per_s,
        compare="ratio",
    )


def slowest_first_token(streams: int, target: Target | None = None) -> Metric[Run]:
    """99th percentile of the time to first token."""
    return Metric(
        title=f"TTFT p99 (ms), {_streams(streams)}",
        read=lambda run: run.at(streams).ttft_p99_ms,
        compare="ratio",
        target=target,
    )


def first_token(streams: int, target: Target | None = None) -> Metric[Run]:
    """Median time to first token."""
    return Metric(
        title=f"TTFT p50 (ms), {_streams(streams)}",
        read=lambda run: run.at(streams).ttft_p50_ms,
        compare="difference",
        target=target,
    )


def inter_token(streams: int) -> tuple[Metric[Run], Metric[Run]]:
    """Median and 99th percentile of the time between two chunks of an answer."""
    return (
        Metric(
            title=f"ITL p50 (ms), {_streams(streams)}",
            read=lambda run: run.at(streams).itl_p50_ms,
            compare="ratio",
        ),
        Metric(
            title=f"ITL p99 (ms), {_streams(streams)}",
            read=lambda run: run.at(streams).itl_p99_ms,
            compare="ratio",
        ),
    )


def cpu(streams: int, target: Target | None = None) -> tuple[Metric[Run], Metric[Run], Metric[Run]]:
    """CPU time per streamed token: of the whole tree, of the API process, of the engine's processes."""

    def per_token(title: str, seconds: Callable[[Load], float], target: Target | None) -> Metric[Run]:
        return Metric(
            title=f"CPU µs/token, {title}, {_streams(streams)}",
            read=lambda run: 1e6 * seconds(run.at(streams)) / run.at(streams).output_tokens,
            compare="ratio",
            digits=0,
            target=target,
        )

    return (
        per_token("all processes", lambda load: load.api_cpu_s + load.engine_cpu_s, target),
        per_token("API process", lambda load: load.api_cpu_s, target),
        per_token("engine processes", lambda load: load.engine_cpu_s, None),
    )


def _streams(number: int) -> str:
    return f"{number} stream{'s' if number > 1 else ''}"


WITHIN_5_PERCENT = Target(text="<= 1.05", is_met=lambda ratio: ratio <= 1.05)
AS_FAST = Target(text=">= 0.98", is_met=lambda ratio: ratio >= 0.98)
OVERHEAD = (
    *(throughput(streams, AS_FAST) for streams in (1, 8, 32)),
    *map(characters, (1, 8, 32)),
    first_token(1, Target(text="<= 2 ms", is_met=lambda difference: difference <= 2)),
    first_token(8),
    first_token(32),
    *(slowest_first_token(streams, WITHIN_5_PERCENT) for streams in (1, 8, 32)),
    *(metric for streams in (1, 8, 32) for metric in inter_token(streams)),
    *(metric for streams in (1, 8, 32) for metric in cpu(streams, WITHIN_5_PERCENT)),
)
SATURATION: tuple[Metric[Flood], ...] = (
    Metric(
        title="goodput (good answers/s)",
        read=lambda flood: flood.goodput_per_s,
        compare="ratio",
        digits=2,
        target=Target(text="> 1", is_met=lambda ratio: ratio > 1),
    ),
    Metric(title="good, of all requests", read=lambda flood: flood.good_share, compare="ratio", digits=3),
    Metric(
        title="answered, of all requests", read=lambda flood: flood.answered_share, compare="ratio", digits=3
    ),
    Metric(title="TTFT p50 (ms), of those answered", read=lambda flood: flood.ttft_p50_ms, compare="ratio"),
    Metric(title="TTFT p99 (ms), of those answered", read=lambda flood: flood.ttft_p99_ms, compare="ratio"),
    Metric(title="first request to last answer (s)", read=lambda flood: flood.duration_s, compare="ratio"),
)
OUT_OF_THE_BOX = (
    throughput(16, Target(text=">= 1.5", is_met=lambda ratio: ratio >= 1.5)),
    throughput(4),
    throughput(1),
    characters(16),
    first_token(16),
    first_token(4),
    first_token(1),
    Metric(title="start to ready (s)", read=lambda run: run.ready_s, compare="ratio"),
    Metric(
        title="memory, sum of RSS (GiB)", read=lambda run: run.resident_bytes / GIB, compare="ratio", digits=2
    ),
)
METRICS: dict[Part, tuple[Metric[Run], ...]] = {"overhead": OVERHEAD, "out-of-the-box": OUT_OF_THE_BOX}
TITLES: dict[Part, str] = {
    "overhead": "Overhead: same engine flags, same environment",
    "saturation": "Beyond saturation: same engine flags, same environment",
    "out-of-the-box": "Out of the box: each server's own defaults",
}


def render(
    runs: Sequence[Run],
    floods: Sequence[Flood],
    pairs: dict[Part, tuple[Contender, Contender]],
    machine: Machine,
    command: str,
    parameters: int,
) -> str:
    """RESULTS.md."""
    parts = [_heading(machine, command, parameters)]
    for part, pair in pairs.items():
        of_part = [run for run in runs if run.part == part]
        tables = [_flooded(floods)] if part == "saturation" else [_loads(part), _table(of_part, METRICS[part])]
        starts = [] if part == "saturation" else [_starts(of_part)]
        parts += [f"## {TITLES[part]}", *tables, *starts, _commands(pair)]
    text = "\n\n".join([*parts, NOTES]) + "\n"
    return text.replace(f"{Path.cwd()}/", "")  # as typed from the repository's root


def _heading(machine: Machine, command: str, parameters: int) -> str:
    lines = [
        "# malmoi-serve against the stock vLLM server",
        machine.heading(command),
        f"A Llama of {parameters / 1e6:.1f} million random bf16 parameters with the KoRAE format; chats of "
        f"{INPUT_TOKENS} random tokens in and exactly {OUTPUT_TOKENS} out (ignore_eos, temperature 1), "
        "streamed. "
        "Medians over repeats (least - greatest); ratios are malmoi / stock and differences malmoi - stock, "
        "each within one repeat.",
    ]
    return "\n\n".join(lines)


def _loads(part: Part) -> str:
    counts = ", ".join(
        f"{count} requests at {_streams(streams)}" for streams, count in NUM_REQUESTS[part].items()
    )
    return f"Each run: {counts}."


def _flooded(floods: Sequence[Flood]) -> str:
    said = (
        f"Requests come at random moments (Poisson) for {DURATION_S:.0f} s, {floods[0].per_s:.1f} in a second: "
        f"{OVER} times what stock finished of requests that came all at once. Either engine runs {MAX_RUNNING} "
        f"at once; malmoi-serve lets none wait for more than {QUEUE_TIMEOUT_S:g} s (`--queue-timeout`), and "
        f"refuses with 429. An answer is good if its first token came within {TTFT_MS} ms and the further ones "
        f"took {TPOT_MS} ms each at most."
    )
    return f"{said}\n\n{_table(floods, SATURATION)}"


def _table(runs: Sequence[Repeated], metrics: Sequence[Metric[Repeated]]) -> str:
    head = "| | stock | malmoi | compared | target | verdict |\n| --- | --- | --- | --- | --- | --- |"
    return "\n".join([head, *(_line(runs, metric) for metric in metrics)])


def _line(runs: Sequence[Repeated], metric: Metric[Repeated]) -> str:
    stock, ours = (values(runs, name, metric) for name in get_args(Name))
    compared = compare(stock, ours, metric.compare)
    sign, digits = ("+", 1) if metric.compare == "difference" else ("", 3)
    cells = [
        metric.title,
        _spread(stock, metric.digits),
        _spread(ours, metric.digits),
        _spread(compared, digits, sign),
        metric.target.text if metric.target else "",
        verdict(compared, metric.target) if metric.target else "",
    ]
    return f"| {' | '.join(cells)} |"


def values(runs: Sequence[Repeated], name: Name, metric: Metric[Repeated]) -> list[float]:
    """A server's measurements, in the order of the repeats."""
    return [metric.read(run) for run in sorted(runs, key=lambda run: run.repeat) if run.name == name]


def compare(stock: Sequence[float], ours: Sequence[float], how: Literal["ratio", "difference"]) -> list[float]:
    """Ours against stock, repeat by repeat; infinite where stock has none of what we have."""
    of_two = _difference if how == "difference" else _ratio
    return [of_two(mine, theirs) for theirs, mine in zip(stock, ours, strict=True)]


def _difference(mine: float, theirs: float) -> float:
    return mine - theirs


def _ratio(mine: float, theirs: float) -> float:
    if theirs:
        return mine / theirs
    return inf if mine else nan


def verdict(compared: Sequence[float], target: Target) -> str:
    """Whether the median meets the target, and how many repeats do."""
    word = "met" if target.is_met(median(compared)) else "**missed**"
    return f"{word} ({sum(map(target.is_met, compared))} of {len(compared)} repeats)"


def _spread(numbers: Sequence[float], digits: int, sign: str = "") -> str:
    middle, low, high = (
        f"{number:{sign},.{digits}f}" for number in (median(numbers), min(numbers), max(numbers))
    )
    return f"{middle} ({low} - {high})" if len(numbers) > 1 else middle


def _starts(runs: Sequence[Run]) -> str:
    """The first start compiles into an empty cache: said apart, since the median hides it."""
    firsts = ", ".join(f"{run.name} {run.ready_s:.1f} s" for run in runs if run.repeat == 0)
    order = ", ".join(run.name for run in runs)
    loads = ", ".join(f"{run.load_average:.2f}" for run in runs)
    return f"First start, nothing compiled yet: {firsts}. Order: {order}. Load average before each: {loads}."


def _commands(pair: tuple[Contender, Contender]) -> str:
    lines = ["```"]
    for contender in pair:
        variables = (f"{name}={value}" for name, value in contender.environment.items())
        lines.append(" ".join([*variables, *contender.command, "(--port N)"]))
    return "\n".join([*lines, "```"])


NOTES = f"""## How to read it

- The load generator is `vllm bench serve`; it shares the cores with the server, the same for both.
- The order alternates (stock, malmoi, malmoi, stock, ...), and one server at a time is loaded. For the overhead
  both are started once, take turns at each number of streams, and one is stopped (SIGSTOP) while the other is
  loaded; out of the box each run is a fresh start, alone.
- Ready: `/health` of stock, `/ready` of malmoi, which has then already decoded its first tokens.
- CPU is user and system time from /proc between the first measured request and the end of the last answer.
  The engine's threads spin while they wait for each other, so its CPU follows the wall clock; what a server
  adds shows in the API process.
- ITL is the time between chunks. vLLM sends an answer's role in a chunk of its own: one gap in each answer is
  about 0. And it sends a chunk without text for a token that ends inside a character; malmoi sends none, so
  that its rarest gaps are of two steps.
- Memory is read after the loads; pages that processes share count once for each.
- Characters are those of the answers' text. The weights are random: the text is noise, the same kind for both.
- Neither server is given the caller's variables that begin with {", ".join(SHELL_PREFIXES)}. Both are told
  VLLM_NO_USAGE_STATS=1 and HF_HUB_OFFLINE=1 and listen on loopback; each has a compile cache of its own, empty
  at the first repeat.
- For the overhead, stock has its access log off, as malmoi has; out of the box it keeps it."""
