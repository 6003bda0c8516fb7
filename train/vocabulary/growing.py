"""The grown tokenizer's files: real vocabulary entries and merge rules, never `add_tokens`.

An added token is matched before the text is cut into words, and so inside them; see docs/vocabulary.md.
"""

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.vocabulary.base import Base
from train.vocabulary.choosing import grown_merges


def grow(base: Base, tokens: Sequence[str]) -> Base:
    """The base with `tokens` added, the most urgent to merge first; they take the ids from `num_ids` on."""
    state = _grown_state(base, tokens)
    model = None if base.piece_model is None else _grown_model(base.piece_model, base, tokens)
    return Base(state=state, family=base.family, piece_model=model)


def _grown_state(base: Base, tokens: Sequence[str]) -> dict[str, Any]:
    state: dict[str, Any] = copy.deepcopy(dict(base.state))
    # Special tokens, too, go into the model's vocabulary: one that is only an added token is given the next
    # free id when the file is read, and that would now be another.
    vocabulary = base.vocabulary | {token: base.num_ids + place for place, token in enumerate(tokens)}
    state["model"]["vocab"] = vocabulary
    is_paired = bool(base.state["model"]["merges"]) and isinstance(base.state["model"]["merges"][0], list)
    merges = grown_merges(base, tokens)
    state["model"]["merges"] = [list(pair) if is_paired else " ".join(pair) for pair in merges]
    return state


def _grown_model(model: bytes, base: Base, tokens: Sequence[str]) -> bytes:
    """The SentencePiece model with the tokens as pieces, each scored below all before it.

    By at least one place of a float: some models score their last pieces -1e9, where places are 64 apart.
    """
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    proto = ModelProto.FromString(model)
    assert len(proto.pieces) == base.num_ids, "tokenizer.model and tokenizer.json are of one vocabulary"
    score = np.float32(min(piece.score for piece in proto.pieces))
    for token in tokens:
        score = min(score - np.float32(1), np.nextafter(score, np.float32("-inf")))
        piece = proto.pieces.add()
        piece.piece, piece.score, piece.type = token, float(score), piece.NORMAL
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return bytes(proto.SerializeToString())


def tokenizer_json(base: Base) -> str:
    """tokenizer.json."""
    return json.dumps(base.state, ensure_ascii=False, indent=2) + "\n"
