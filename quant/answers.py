"""Greedy answers to held-out prompts: does the model still end them, or does it run in circles?"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.repetition import MAX_NEW_TOKENS, ends_in_loop
from quant.fidelity import AnswerRates
from quant.passages import rendered
from quant.texts import Text

Prompt = tuple[Message, ...]
"""Turns up to the one that is to be answered."""

ROWS: Final = 16


def prompts_of(texts: Iterable[Text]) -> list[Prompt]:
    """What the texts ask: a dialogue's turns before its first answer, a plain text as the user's one turn."""
    found = []
    for text in texts:
        turns = (Message("user", text),) if isinstance(text, str) else text
        asked = tuple(takewhile(lambda turn: turn.role != "assistant", turns))
        if any(turn.role == "user" for turn in asked):
            found.append(asked)
    return found


def answer_rates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> AnswerRates:
    """The shares of greedy answers that end in eos within `max_new_tokens`, and that end in a repetition."""
    texts = [rendered(prompt, tokenizer, add_generation_prompt=True) for prompt in prompts]
    texts.sort(key=len)
    eos_ids = model.generation_config.eos_token_id
    ends = {eos_ids} if isinstance(eos_ids, int) else set(eos_ids or ())
    num_ended = num_looping = 0
    for start in tqdm(range(0, len(texts), ROWS), unit="batch", disable=None):
        for ids in _generate(model, tokenizer, texts[start : start + ROWS], max_new_tokens):
            answer = list(takewhile(lambda token: token not in ends, ids))
            num_ended += len(answer) < len(ids)
            num_looping += ends_in_loop(answer)
    return AnswerRates(eos_rate=num_ended / len(texts), loop_rate=num_looping / len(texts))


def _generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_new_tokens: int
) -> list[list[int]]:
    """The new tokens of each; behind eos there is padding."""
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_token_type_ids=False,
    ).to(model.device)
    with torch.inference_mode():
        output = model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    found: list[list[int]] = output[:, batch["input_ids"].shape[1] :].tolist()
    return found
