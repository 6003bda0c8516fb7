"""Whether an answer runs in circles."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

MAX_PERIOD, MIN_REPEATS, MIN_LOOP_TOKENS = 64, 4, 16
"""A loop repeats at most so many tokens, at least so often, and is so long in all."""
MAX_NEW_TOKENS: Final = 256
"""That an answer is given to end."""


def ends_in_loop(ids: Sequence[int]) -> bool:
    """Whether the last tokens are the same few over and over."""
    for period in range(1, min(MAX_PERIOD, len(ids) // MIN_REPEATS) + 1):
        pairs = zip(reversed(ids), reversed(ids[:-period]), strict=False)
        length = period + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if length >= max(MIN_REPEATS * period, MIN_LOOP_TOKENS):
            return True
    return False
