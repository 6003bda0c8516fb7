"""How fast a server generates: tokens and characters a second over the OpenAI API, all requests together."""

import json
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

NUM_STREAMS, NUM_TOKENS, NUM_ROUNDS = 8, 128, 3
"""Requests at a time, tokens that each generates, and how often all of them are asked."""
OPENING_CHARACTERS: Final = 100
ANSWER_S: Final = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a server generates."""

    tokens_per_second: float
    characters_per_second: float


def generation_speed(url: str, model: str, texts: Sequence[str], *, key: str = "none") -> Speed:
    """Tokens and characters generated a second, where NUM_STREAMS openings of `texts` are gone on with at once.

    Each for NUM_TOKENS tokens, greedy, past eos (which vLLM can); the median of NUM_ROUNDS rounds after one
    that warms up. `url`: where /v1 follows.

    Raises: OSError if the server does not answer.
    """
    openings = [text[:OPENING_CHARACTERS] for text in texts]
    bodies = [
        {
            "model": model,
            "prompt": openings[number % len(openings)],
            "max_tokens": NUM_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        for number in range(NUM_STREAMS)
    ]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    requests = [
        urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers) for body in bodies
    ]
    with ThreadPoolExecutor(NUM_STREAMS) as streams:
        rounds = [_round(streams, requests) for _ in range(1 + NUM_ROUNDS)][1:]
    return Speed(
        tokens_per_second=median(speed.tokens_per_second for speed in rounds),
        characters_per_second=median(speed.characters_per_second for speed in rounds),
    )


def _round(streams: ThreadPoolExecutor, requests: Sequence[urllib.request.Request]) -> Speed:
    """All requests at once; the time is until the last has been answered."""
    started = time.perf_counter()
    answers = list(streams.map(_answer, requests))
    seconds = time.perf_counter() - started
    return Speed(
        tokens_per_second=sum(answer["usage"]["completion_tokens"] for answer in answers) / seconds,
        characters_per_second=sum(len(answer["choices"][0]["text"]) for answer in answers) / seconds,
    )


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
