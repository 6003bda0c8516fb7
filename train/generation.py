"""Greedy answers from a chat checkpoint, through its own template."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from malmoi.chat import Message

ROWS = 64


class Answerer:
    """A checkpoint directory's model and tokenizer, loaded as anyone would load them."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        self.model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int = 64) -> list[str]:
        """The answer to each conversation, as the model itself ends it."""
        prompts = [
            self.tokenizer.apply_chat_template(
                [message.as_dict() for message in turns], tokenize=False, add_generation_prompt=True
            )
            for turns in conversations
        ]
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            for number, text in zip(
                chosen, self._complete([prompts[number] for number in chosen], max_new_tokens), strict=True
            ):
                answers[number] = text
        return answers

    def _complete(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        batch = self.tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        with torch.inference_mode():
            output = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        new = output[:, batch["input_ids"].shape[1] :]  # (rows, tokens)
        return [str(text) for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]
