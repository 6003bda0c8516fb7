"""How a chat model behaves: does it end its answers, run in circles, and answer Korean in Korean?"""

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Final

from malmoi.chat import Message
from malmoi.errors import CorpusError
from malmoi.provenance import text_digest
from malmoi.repetition import ends_in_loop
from train.corpus.filters import HANGUL
from train.evaluation.results import Chat
from train.generation import Answer
from train.tuning.reading import read_dialogues

NUM_PROMPTS: Final = 128
"""Where no limit is given."""
KOREAN_SHARE: Final = 0.5
"""Of a text's letters that are Hangul, from which on it is Korean."""

Prompt = tuple[Message, ...]


def read_prompts(corpus: Sequence[str], limit: int | None) -> list[Prompt]:
    """What stands before the first answer of each dialogue, the same question once.

    Raises: CorpusError for a row that is no dialogue, or if there is no question.
    """
    asked = (
        tuple(takewhile(lambda turn: turn.role != "assistant", dialogue.messages))
        for dialogue in read_dialogues(corpus).examples
    )
    prompts = [prompt for prompt in dict.fromkeys(asked) if any(turn.role == "user" for turn in prompt)]
    if not prompts:
        raise CorpusError(
            "--prompts-file", expected="dialogues", found="none", next_step="name files of dialogues"
        )
    return prompts[: limit or NUM_PROMPTS]


def chat_of(
    prompts: Sequence[Prompt], answers: Sequence[Answer], encode: Callable[[str], Sequence[int]]
) -> Chat:
    """The answers to these prompts in numbers. `encode`: a text's tokens; loops are looked for in them."""
    asked_in_korean = [is_korean(prompt[-1].content) for prompt in prompts]
    in_korean = [
        is_korean(answer.text) for answer, asked in zip(answers, asked_in_korean, strict=True) if asked
    ]
    return Chat(
        num_prompts=len(prompts),
        prompt_digest=prompts_digest(prompts),
        eos_rate=_mean(answer.has_ended for answer in answers),
        loop_rate=_mean(ends_in_loop(encode(answer.text)) for answer in answers),
        korean_share=_mean(in_korean) if in_korean else None,
        mean_characters=_mean(len(answer.text) for answer in answers),
        mean_tokens=_mean(answer.num_tokens for answer in answers),
    )


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of the prompts in their order."""
    return text_digest(repr(list(prompts)))


def is_korean(text: str) -> bool:
    """Whether most of its letters are Hangul; a text without letters is not."""
    num_letters = sum(map(str.isalpha, text))
    return len(HANGUL.findall(text)) > KOREAN_SHARE * num_letters


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
