"""Examples as token ids, and rows of equal length that hold many of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from transformers import PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.errors import RecipeError

IGNORED: Final = -100
"""The label of a token that no loss is taken on."""
BATCH: Final = 1000
NUM_OPEN_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Example:
    """A text in tokens; `labels` are the same ids where the model is to learn them, else -100."""

    input_ids: list[int]
    labels: list[int]


@dataclass(slots=True)
class Row:
    """Examples end to end, each counting its positions from 0: that is how attention tells them apart."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)

    def append(self, example: Example) -> None:
        """Adds `example` at the end."""
        self.input_ids += example.input_ids
        self.labels += example.labels
        self.position_ids += range(len(example.input_ids))


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]]
) -> Iterator[Example]:
    """Each conversation in the tokenizer's chat format; the assistant's answers and their eos are learnt."""
    for start in range(0, len(conversations), BATCH):
        batch = [[message.as_dict() for message in turns] for turns in conversations[start : start + BATCH]]
        encoded = tokenizer.apply_chat_template(batch, return_dict=True, return_assistant_tokens_mask=True)
        for input_ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
            labels = [token if learnt else IGNORED for token, learnt in zip(input_ids, mask, strict=True)]
            yield Example(input_ids, labels)


def encode_sentences(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]) -> Iterator[Example]:
    """Each text between bos and eos; all of it is learnt but bos."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for start in range(0, len(sentences), BATCH):
        encoded = tokenizer(list(sentences[start : start + BATCH]), add_special_tokens=False)
        for token_ids in encoded["input_ids"]:
            yield Example([bos, *token_ids, eos], [IGNORED, *token_ids, eos])


def pack(examples: Iterable[Example], row_tokens: int, padding_id: int) -> list[Row]:
    """Rows of `row_tokens`; an example goes whole into the fullest open row that has room for it.

    Raises: RecipeError if an example is longer than a row.
    """
    done: list[Row] = []
    open_rows: list[Row] = []
    for example in examples:
        if len(example.input_ids) > row_tokens:
            raise RecipeError(
                "the training text",
                expected=f"examples of at most {row_tokens} tokens",
                found=f"one of {len(example.input_ids)}",
                next_step="cut the text into shorter ones, or use a recipe with longer rows",
            )
        room = row_tokens - len(example.input_ids)
        fitting = [row for row in open_rows if len(row.input_ids) <= room]
        row = max(fitting, key=lambda row: len(row.input_ids)) if fitting else Row()
        if not fitting:
            open_rows.append(row)
        row.append(example)
        if len(open_rows) > NUM_OPEN_ROWS:
            fullest = max(open_rows, key=lambda row: len(row.input_ids))
            open_rows = [row for row in open_rows if row is not fullest]
            done.append(fullest)
    done += open_rows
    for row in done:
        missing = row_tokens - len(row.input_ids)
        row.append(Example([padding_id] * missing, [IGNORED] * missing))
    return done
