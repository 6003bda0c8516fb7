"""Which tokens of a vocabulary are only part of a character."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-F]{2}>")
REPLACEMENT: Final = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


def byte_tokens(vocabulary: Mapping[str, int], decode: Callable[[Sequence[str]], str] | None) -> set[int]:
    """The ids of `<0xNN>`, and of a byte-level tokenizer's tokens whose bytes are no whole characters.

    `decode`: the tokenizer's own decoder, from tokens to their text.
    """
    return {
        token_id
        for token, token_id in vocabulary.items()
        if BYTE_TOKEN.fullmatch(token) or (decode is not None and REPLACEMENT in decode([token]))
    }
