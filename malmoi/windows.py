"""How a text longer than a model's window is read: in windows that overlap by half.

Each token is predicted once, from all of the text before it or, behind the first window, from at least half a
window of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from malmoi.checkpoint import Checkpoint

MAX_WINDOW: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a text that is read at once."""

    ids: Sequence[int]
    first: int
    """Place in `ids` of the first token that is predicted here; those before it are read only."""


def max_positions(checkpoint: Checkpoint) -> int:
    """Tokens that the model was made for, or MAX_WINDOW where its config does not say."""
    config = checkpoint.config
    return int(config.get("max_position_embeddings") or config.get("n_positions") or MAX_WINDOW)


def window_width(checkpoint: Checkpoint) -> int:
    """Tokens that are read at once: all that the model was made for, up to MAX_WINDOW."""
    return min(MAX_WINDOW, max_positions(checkpoint))


def windows(ids: Sequence[int], width: int) -> Iterator[Window]:
    """A text's tokens in stretches of at most `width`, each begun half a width behind the last.

    The first token is given, all others are predicted.
    """
    begin, predicted = 0, 1
    while predicted < len(ids):
        stretch = ids[begin : begin + width]
        yield Window(ids=stretch, first=predicted - begin)
        predicted = begin + len(stretch)
        begin += width // 2
