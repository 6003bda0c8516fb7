"""Texts as a checkpoint's own tokenizer and template turn them into tokens, for measuring on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from malmoi.chat import TEMPLATE, Message
from malmoi.errors import CorpusError
from quant.texts import Text

OPENING_CHARACTERS: Final = 40
"""Of a dialogue that is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A text's tokens. The first is given, all others are to be predicted."""

    ids: Sequence[int]
    num_bytes: int
    """Of the predicted tokens' text, in UTF-8."""


def sample(texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, *, num_tokens: int) -> list[Passage]:
    """Passages of the texts, in turn, until `num_tokens` are to be predicted; the last is cut there."""
    passages: list[Passage] = []
    left = num_tokens
    for text in texts:
        if left <= 0:
            break
        passage = passage_of(text, tokenizer, max_predicted=left)
        if passage is not None:
            passages.append(passage)
            left -= len(passage.ids) - 1
    return passages


def passage_of(
    text: Text, tokenizer: PreTrainedTokenizerBase, *, max_predicted: int | None = None
) -> Passage | None:
    """A text as the model meets it; None where nothing is left to predict.

    Running text stands behind bos, where the tokenizer has one that is not its eos; else its own first token is
    the given one. A dialogue is rendered by the checkpoint's template, or, as malmoi-serve does, by KoRAE's.
    """
    if isinstance(text, str):
        start = start_of(tokenizer)
    else:
        text, start = rendered(text, tokenizer), []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = [*start, *encoded["input_ids"]], encoded["offset_mapping"]
    if max_predicted is not None:
        ids = ids[: max_predicted + 1]
    if len(ids) < 2:
        return None
    begin = 0 if start else offsets[0][1]
    end = len(text) if len(ids) == len(start) + len(offsets) else offsets[len(ids) - len(start) - 1][1]
    return Passage(ids=ids, num_bytes=len(text[begin:end].encode()))


def start_of(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before running text: bos, where the tokenizer has one that is not its eos."""
    bos = tokenizer.bos_token_id
    return [] if bos is None or bos == tokenizer.eos_token_id else [bos]


def rendered(
    dialogue: Sequence[Message], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool = False
) -> str:
    """The dialogue in the checkpoint's format, or in KoRAE's where it has none.

    Raises: CorpusError if the template refuses it.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            [message.as_dict() for message in dialogue],
            chat_template=None if tokenizer.chat_template else TEMPLATE,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except TemplateError as error:
        raise CorpusError(
            f"the dialogue of {dialogue[0].role} {dialogue[0].content[:OPENING_CHARACTERS]!r}",
            expected="turns that the checkpoint's chat template takes",
            found=str(error),
            next_step="leave it out, or what the template refuses of it",
        ) from error
    return text
