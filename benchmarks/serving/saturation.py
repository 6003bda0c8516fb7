"""More than the servers can answer: requests at random moments, 1.2 times as many as stock finishes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import servers
from benchmarks.serving.load import IGNORE_EOS, RANDOM_CHATS, bench
from benchmarks.serving.runs import Pair, in_order
from benchmarks.serving.servers import MAX_RUNNING, Contender, Running

NUM_AT_CAPACITY: Final = 256
"""Requests sent at once to find out how many are finished in a second."""
OVER: Final = 1.2
DURATION_S: Final = 45.0
TTFT_MS: Final = 2000
TPOT_MS: Final = 100
"""An answer is good if its first token came so soon, and a further one each so many milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What became of the requests, in one repeat."""

    repeat: int
    name: str
    per_s: float
    """Requests that came."""
    num_requests: int
    num_answered: int
    num_good: int
    duration_s: float
    """From the first request to the last answer."""
    ttft_p50_ms: float
    ttft_p99_ms: float
    """Of those answered."""

    @property
    def goodput_per_s(self) -> float:
        """Good answers in a second."""
        return self.num_good / self.duration_s

    @property
    def answered_share(self) -> float:
        """Of all requests."""
        return self.num_answered / self.num_requests

    @property
    def good_share(self) -> float:
        """Of all requests."""
        return self.num_good / self.num_requests


def measure(pair: Pair, repeats: int, tokenizer: Path, raw: Path) -> Iterator[Flood]:
    """Every repeat's two, in alternating order; both servers are started once and take turns.

    Raises: ServeError if a server does not start.
    """
    with servers.taking_turns(pair, raw, "saturation") as started:
        with servers.awake(started["stock"]) as stock:
            capacity = finished_per_s(stock, pair[0], tokenizer, raw / "saturation-capacity.json")
        for repeat, contender in in_order(pair, repeats):
            out = raw / f"saturation-{repeat}-{contender.name}.json"
            with servers.awake(started[contender.name]) as server:
                flood = _flood(repeat, contender, server, OVER * capacity, tokenizer, out)
            yield flood


def finished_per_s(server: Running, contender: Contender, tokenizer: Path, out: Path) -> float:
    """Requests that it finishes in a second, of NUM_AT_CAPACITY that come all at once."""
    options = RANDOM_CHATS | {"num-prompts": NUM_AT_CAPACITY, "num-warmups": MAX_RUNNING, "seed": 0}
    result = bench(server, contender, tokenizer, out, options, IGNORE_EOS)
    return float(result["request_throughput"])


def _flood(
    repeat: int, contender: Contender, server: Running, per_s: float, tokenizer: Path, out: Path
) -> Flood:
    num_requests = round(per_s * DURATION_S)
    options = RANDOM_CHATS | {
        "num-prompts": num_requests,
        "num-warmups": MAX_RUNNING,
        "request-rate": per_s,
        "seed": 1 + repeat,  # the same arrivals and prompts for both
    }
    result = bench(server, contender, tokenizer, out, options, IGNORE_EOS)
    return read(repeat, contender.name, per_s, num_requests, result)


def read(repeat: int, name: str, per_s: float, num_requests: int, result: dict[str, Any]) -> Flood:
    """What the load generator's own JSON says."""
    answered = [
        (1e3 * first, 1e3 * (whole - first) / max(length - 1, 1))
        for first, whole, length in zip(
            result["ttfts"], result["latencies"], result["output_lens"], strict=True
        )
        if length > 0
    ]
    return Flood(
        repeat=repeat,
        name=name,
        per_s=per_s,
        num_requests=num_requests,
        num_answered=len(answered),
        num_good=sum(ttft <= TTFT_MS and tpot <= TPOT_MS for ttft, tpot in answered),
        duration_s=result["duration"],
        ttft_p50_ms=result["p50_ttft_ms"],
        ttft_p99_ms=result["p99_ttft_ms"],
    )
