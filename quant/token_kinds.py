"""Which of a vocabulary's tokens are the base's, which were grown, and which are only part of a character."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from malmoi.byte_tokens import byte_tokens
from malmoi.checkpoint import Checkpoint
from malmoi.checkpoint_files import TOKENIZER_FILE
from quant.fidelity import TOKEN_KINDS


def num_old_of(checkpoint: Checkpoint) -> int:
    """The ids below it are the base's, as the ledger says; without one all are."""
    ledger = checkpoint.provenance.ledger if checkpoint.provenance else None
    return ledger.num_old if ledger else checkpoint.vocab_size


def token_kinds(checkpoint: Checkpoint) -> NDArray[np.int8]:
    """Of each token id, the place of its kind in TOKEN_KINDS. Shape: (vocab,).

    Of bytes see malmoi.byte_tokens.
    """
    num_old = num_old_of(checkpoint)
    kinds = np.full(checkpoint.vocab_size, TOKEN_KINDS.index("old"), np.int8)
    kinds[num_old:] = TOKEN_KINDS.index("new")
    decoder = Tokenizer.from_file(str(checkpoint.path / TOKENIZER_FILE)).decoder
    partial = byte_tokens(checkpoint.vocabulary, decoder.decode if decoder is not None else None)
    kinds[sorted(partial)] = TOKEN_KINDS.index("byte")
    return kinds
