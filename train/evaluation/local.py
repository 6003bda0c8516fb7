"""A model in a directory: a checkpoint, or an export of one."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm
from transformers import PreTrainedModel

from malmoi.chat import Message
from malmoi.checkpoint import open_checkpoint
from malmoi.errors import CheckpointError
from malmoi.provenance import checkpoint_digest, record_files
from malmoi.windows import Window, max_positions
from train.evaluation.harness import quiet
from train.evaluation.loading import check_memory, load_model, load_tokenizer
from train.generation import Answer, Answerer
from train.loop import say
from train.loss import LOGITS_AT_ONCE

MAX_ROWS: Final = 64


class LocalModel:
    """A directory's model; its weights are loaded when it is first asked."""

    def __init__(self, directory: Path) -> None:
        """Raises: CheckpointError if it breaks the contract, or there is no room for it."""
        checkpoint = open_checkpoint(directory)
        check_memory(checkpoint)
        for note in checkpoint.notes:
            say(note)
        self._directory = directory
        self.name = self.model = directory.resolve().name
        self.digest = self.identity = checkpoint_digest(record_files(directory))
        self.tokenizer = load_tokenizer(directory)
        self.max_tokens = max_positions(checkpoint)

    @cached_property
    def _model(self) -> PreTrainedModel:
        say(f"loading {self._directory}")
        return load_model(self._directory)

    def nats(self, windows: Sequence[Window]) -> list[float]:
        """See Subject. Raises: CheckpointError if the model's predictions are no numbers."""
        return window_nats(self._model, windows)

    def harness(self, batch_size: int | None, *, is_chat: bool) -> Any:  # noqa: ARG002  # HFLM finds a bos itself
        """See Subject."""
        model = self._model
        with quiet():
            return FittedLM(
                pretrained=model,
                tokenizer=self.tokenizer,
                batch_size="auto" if batch_size is None else batch_size,
                max_batch_size=MAX_ROWS,
            )

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """See Subject."""
        return Answerer(self._model, self.tokenizer).answers(conversations, max_new_tokens)

    def speed(self, texts: Sequence[str]) -> None:  # noqa: ARG002
        """See Subject."""
        return


class FittedLM(HFLM):  # type: ignore[misc]  # lm_eval has no types
    """transformers' models in the harness, with a batch that fits.

    On a GPU the harness tries sizes until one fits. On a CPU that ends in a process that is killed, so there as
    many rows are read at once as make LOGITS_AT_ONCE scores.
    """

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """Rows to read at once, from the longest request, which stands at `pos`."""
        if self.device.type != "cpu" or not requests:
            found: int = super()._detect_batch_size(requests, pos)
            return found
        _, context, continuation = requests[pos]
        length = min(len(context) + len(continuation), self.max_length)
        return rows_at_once(length, self.model.config.vocab_size)


def rows_at_once(length: int, vocab_size: int) -> int:
    """Rows of so many tokens that make LOGITS_AT_ONCE scores: a power of two, at most MAX_ROWS."""
    fitting = max(1, min(MAX_ROWS, LOGITS_AT_ONCE // (length * vocab_size)))
    return 1 << (fitting.bit_length() - 1)


def window_nats(model: PreTrainedModel, windows: Sequence[Window]) -> list[float]:
    """The summed negative log likelihood of each window's predicted tokens.

    Memory: beside the model LOGITS_AT_ONCE scores, or one window's.

    Raises: CheckpointError if the model's predictions are no numbers.
    """
    order = sorted(range(len(windows)), key=lambda number: -len(windows[number].ids))
    nats = [0.0] * len(windows)
    start = 0
    with tqdm(total=len(order), unit="window", disable=None) as progress:
        while start < len(order):
            rows = rows_at_once(len(windows[order[start]].ids), model.config.vocab_size)
            chosen = order[start : start + rows]
            for number, lost in zip(
                chosen, _batch_nats(model, [windows[place] for place in chosen]), strict=True
            ):
                nats[number] = lost
            start += rows
            progress.update(len(chosen))
    num_odd = sum(not math.isfinite(lost) for lost in nats)
    if num_odd:
        raise CheckpointError(
            model.name_or_path,
            expected="predictions that are numbers",
            found=f"{num_odd} of {len(nats)} windows where they are not",
            next_step="train or export it again",
        )
    return nats


def _batch_nats(model: PreTrainedModel, batch: Sequence[Window]) -> list[float]:
    ids = [torch.tensor(window.ids) for window in batch]
    mask = [torch.ones_like(row) for row in ids]
    padded, masks = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (ids, mask))
    with torch.inference_mode():
        logits = model(
            input_ids=padded.to(model.device), attention_mask=masks.to(model.device), use_cache=False
        ).logits  # (rows, tokens, vocab)
        return [
            float(
                torch.nn.functional.cross_entropy(
                    logits[row, window.first - 1 : len(window.ids) - 1].float(),
                    ids[row][window.first :].to(logits.device),
                    reduction="none",
                )
                .double()
                .sum()
            )
            for row, window in enumerate(batch)
        ]
