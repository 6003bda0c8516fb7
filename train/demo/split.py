"""Which questions are kept back for the examination: decided by a hash, so the same ones on every machine."""

import hashlib
from typing import Final

HELD_OUT_SHARE: Final = 0.1


def is_held_out(kind: str, key: str) -> bool:
    """Whether what `key` names (operands, a noun, or a whole question) is kept out of the training text."""
    digest = hashlib.sha256(f"{kind}:{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32
