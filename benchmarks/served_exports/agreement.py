"""Greedy answers of a server, and what transformers would have said at each of their tokens."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quant.serving import NAME, running_server

STREAMS = 8
ANSWER_S = 600.0
Turns = Sequence[dict[str, str]]
DType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class Served:
    """One greedy answer: its text, and the ids of prompt and answer."""

    text: str
    prompt_ids: list[int]
    token_ids: list[int]


def served_answers(
    checkpoint: Path, prompts: Sequence[Turns], max_tokens: int, dtype: DType = "bfloat16"
) -> list[Served]:
    """What malmoi-serve answers, started for it and computing in `dtype`; asked 8 at once."""
    with running_server(checkpoint, ["--", "--dtype", dtype]) as url, ThreadPoolExecutor(STREAMS) as streams:
        return list(streams.map(lambda turns: _ask(url, turns, max_tokens), prompts))


def _ask(url: str, turns: Turns, max_tokens: int) -> Served:
    body = {
        "model": NAME,
        "messages": list(turns),
        "max_tokens": max_tokens,
        "temperature": 0,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        answer: dict[str, Any] = json.load(response)
    choice = answer["choices"][0]
    return Served(choice["message"]["content"] or "", answer["prompt_token_ids"], choice["token_ids"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the tokens of a server's answers compare with transformers' best after the same tokens before."""

    num_tokens: int
    gaps: list[float]
    """Where they differ: how far transformers' logit for its best lies above that for the server's token."""

    def beyond(self, gap: float) -> int:
        """Tokens that differ where transformers' choice was clearer than `gap`."""
        return sum(each > gap for each in self.gaps)


def agreement(checkpoint: Path, answers: Sequence[Served], dtype: DType = "bfloat16") -> Agreement:
    """The checkpoint as transformers loads it in `dtype`, given every answer of the server at once."""
    num_tokens = sum(len(answer.token_ids) for answer in answers)
    return Agreement(num_tokens=num_tokens, gaps=list(_gaps(checkpoint, answers, dtype)))


def _gaps(checkpoint: Path, answers: Sequence[Served], dtype: DType) -> Iterator[float]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, device_map="cpu").eval()
    for answer in answers:
        given = torch.tensor(answer.token_ids)
        ids = torch.tensor([[*answer.prompt_ids, *answer.token_ids]])
        with torch.inference_mode():
            logits = model(ids, logits_to_keep=len(given) + 1).logits[0, :-1].float()
        theirs = logits.gather(1, given[:, None])[:, 0]
        best, place = logits.max(dim=1)
        yield from (best - theirs)[place != given].tolist()
