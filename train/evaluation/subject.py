"""The model that is evaluated, wherever it is."""

from collections.abc import Sequence
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.speed import Speed
from malmoi.windows import Window
from train.generation import Answer


class Subject(Protocol):
    """A model that is asked."""

    @property
    def name(self) -> str:
        """What it is called where nobody says otherwise."""

    @property
    def model(self) -> str:
        """The last part of its path, or its address."""

    @property
    def digest(self) -> str | None:
        """`checkpoint_digest` of a directory; None of a server."""

    @property
    def identity(self) -> str:
        """What tells it from any other model."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its own."""

    @property
    def max_tokens(self) -> int:
        """That it can read and write at once."""

    def nats(self, windows: Sequence[Window]) -> list[float]:
        """The summed negative log likelihood of each window's predicted tokens."""

    def harness(self, batch_size: int | None, *, is_chat: bool) -> Any:
        """It as an lm_eval.api.model.TemplateLM."""

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The greedy answer to each conversation, through its chat template."""

    def speed(self, texts: Sequence[str]) -> Speed | None:
        """How fast it goes on with openings of `texts`; None where it is not served."""
