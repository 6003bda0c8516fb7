"""Load from `vllm bench serve`, and what it measured."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import CpuRecorder
from benchmarks.serving.servers import BIN, Contender, Running, callers_environment
from malmoi.errors import ServeError

INPUT_TOKENS, OUTPUT_TOKENS = 128, 64
MIN_WARM_UPS = 4
TIMEOUT_S = 300.0
RANDOM_CHATS = {
    "dataset-name": "random",
    "random-input-len": INPUT_TOKENS,
    "random-output-len": OUTPUT_TOKENS,
    "temperature": 1,
}
IGNORE_EOS = ("--ignore-eos",)
RECORD = ("--save-result", "--save-detailed", "--disable-tqdm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load on a running server. CPU seconds are those of the measured requests alone, not of warm-ups."""

    streams: int
    output_tokens: int
    tokens_per_s: float
    characters_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    api_cpu_s: float
    engine_cpu_s: float


def apply(
    server: Running, contender: Contender, tokenizer: Path, streams: int, num_requests: int, out: Path
) -> Load:
    """Loads the server with chats of fixed length, `streams` at a time; the tool's own JSON goes to `out`.

    Raises: ServeError if a request failed, or an answer was not of the length asked for.
    """
    options = RANDOM_CHATS | {
        "num-prompts": num_requests,
        "num-warmups": max(streams, MIN_WARM_UPS),
        "max-concurrency": streams,
        "seed": streams,  # other prompts for each load: none is answered from the last one's prefix cache
    }
    with CpuRecorder(server.pid) as recorder:
        result = bench(server, contender, tokenizer, out, options, IGNORE_EOS)
    _check(result, num_requests, out)
    return _read(result, streams, recorder)


def bench(
    server: Running,
    contender: Contender,
    tokenizer: Path,
    out: Path,
    options: Mapping[str, object],
    flags: Sequence[str],
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """What `vllm bench serve` found, asked with these options; its own JSON is at `out`, its log beside it."""
    with out.with_suffix(".log").open("wb") as log:
        subprocess.run(
            _command(server.url, contender.model, tokenizer, out, options, flags),
            env=callers_environment() | {"HF_HUB_OFFLINE": "1"},
            stdout=log,
            stderr=log,
            timeout=timeout_s,
            check=True,
        )
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def _command(
    url: str, model: str, tokenizer: Path, out: Path, options: Mapping[str, object], flags: Sequence[str]
) -> list[str]:
    every: dict[str, object] = {
        "backend": "openai-chat",
        "base-url": url,
        "endpoint": "/v1/chat/completions",
        "model": model,
        "tokenizer": tokenizer,
        "metric-percentiles": "50,99",
        "result-dir": out.parent,
        "result-filename": out.name,
        **options,
    }
    pairs = [text for name, value in every.items() for text in (f"--{name}", str(value))]
    return [*(str(BIN / "vllm"), "bench", "serve"), *pairs, *flags, *RECORD]


def _check(result: dict[str, Any], expected: int, out: Path) -> None:
    lengths = set(result["output_lens"])
    if result["completed"] != expected or lengths != {OUTPUT_TOKENS}:
        raise ServeError(
            out,
            expected=f"{expected} answers of {OUTPUT_TOKENS} tokens",
            found=f"{result['completed']}, of {sorted(lengths)} tokens",
            next_step="see its errors, and the server's log beside it",
        )


def _read(result: dict[str, Any], streams: int, recorder: CpuRecorder) -> Load:
    start = min(result["start_times"])
    api_cpu_s, engine_cpu_s = recorder.spent_s(start, start + result["duration"])
    return Load(
        streams=streams,
        output_tokens=result["total_output_tokens"],
        tokens_per_s=result["output_throughput"],
        characters_per_s=sum(map(len, result["generated_texts"])) / result["duration"],
        ttft_p50_ms=result["p50_ttft_ms"],
        ttft_p99_ms=result["p99_ttft_ms"],
        itl_p50_ms=result["p50_itl_ms"],
        itl_p99_ms=result["p99_itl_ms"],
        api_cpu_s=api_cpu_s,
        engine_cpu_s=engine_cpu_s,
    )
