"""Greedy answers from a chat checkpoint, through its own template."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from malmoi.chat import Message

ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said."""

    text: str
    num_tokens: int
    """Without the eos."""
    has_ended: bool
    """Whether in eos, not in the greatest length."""


class Answerer:
    """A chat model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @classmethod
    def load(cls, directory: Path) -> "Answerer":
        """A checkpoint directory's, loaded as anyone would load them."""
        return cls(
            AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval(),
            AutoTokenizer.from_pretrained(directory, local_files_only=True),
        )

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int = 64) -> list[str]:
        """The text of the answer to each conversation, as the model itself ends it."""
        return [answer.text for answer in self.answers(conversations, max_new_tokens)]

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The answer to each conversation."""
        prompts = [self._prompt(turns) for turns in conversations]
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: dict[int, Answer] = {}
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            answers = self._complete([prompts[number] for number in chosen], max_new_tokens)
            found |= zip(chosen, answers, strict=True)
        return [found[number] for number in range(len(prompts))]

    def _prompt(self, turns: Sequence[Message]) -> str:
        messages = [message.as_dict() for message in turns]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _complete(self, prompts: list[str], max_new_tokens: int) -> list[Answer]:
        new = self._generate(prompts, max_new_tokens)
        eos = self.model.generation_config.eos_token_id
        ends = set(eos) if isinstance(eos, list) else {eos}
        lengths = [sum(1 for _ in takewhile(lambda token: token not in ends, row)) for row in new.tolist()]
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [
            Answer(text=str(text), num_tokens=length, has_ended=length < new.shape[1])
            for text, length in zip(texts, lengths, strict=True)
        ]

    def _generate(self, prompts: list[str], max_new_tokens: int) -> torch.Tensor:
        """The new tokens, (rows, tokens); behind eos there is padding."""
        batch = self.tokenizer(
            prompts,
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return output[:, batch["input_ids"].shape[1] :]
