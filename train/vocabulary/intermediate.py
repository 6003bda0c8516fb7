"""The intermediate tokenizer of EEVE's step 1: plain BPE on the new script alone, the source of candidates.

BPE and not Unigram: every token of a BPE vocabulary is made of two others of it.
"""

from pathlib import Path

import numpy as np
import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from train.corpus.words import ROWS_AT_ONCE
from train.vocabulary.base import SPACE, Base
from train.vocabulary.pretokens import Pretokens

MAX_CHARACTERS = 16
"""Of a token; more would be names and formulas."""
MAX_SYMBOLS = 10**7
"""Characters or bytes of distinct words to train on: a gigabyte of the trainer's memory. What is left out of a
greater table are its rarest words, most of which occur once.
"""


def train_intermediate(pretokens: Pretokens, base: Base, size: int, model: Path) -> None:
    """Trains `size` tokens on the pre-tokens and their counts, by SentencePiece's own trainer, into `model`.

    On the most frequent ones, up to MAX_SYMBOLS; with fewer than it takes, as many tokens as there are.
    """
    starts = pretokens.words.starts
    num_words = int(np.searchsorted(starts, MAX_SYMBOLS, "right")) - 1
    table = model.with_suffix(".tsv")
    with table.open("w", encoding="utf-8") as lines:
        for start in range(0, num_words, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, num_words)
            texts = pretokens.texts.slice(start, end - start).to_pylist()
            counts = pretokens.words.counts[start:end].tolist()
            spelled = (base.token(text).replace(" ", SPACE) for text in texts)
            lines.writelines(f"{word}\t{count}\n" for word, count in zip(spelled, counts, strict=True))
    partial = model.with_suffix(".partial")
    with partial.open("wb") as writer:
        sentencepiece.SentencePieceTrainer.train(
            input=str(table),
            input_format="tsv",
            model_writer=writer,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            max_sentencepiece_length=MAX_CHARACTERS * (3 if base.is_bytes else 1),
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    table.unlink()
    partial.replace(model)


def read_tokens(model: Path) -> list[str]:
    """The intermediate tokenizer's tokens: those of several characters as learnt, then the single ones."""
    proto = ModelProto.FromString(model.read_bytes())
    return [piece.piece for piece in proto.pieces if piece.type == piece.NORMAL]
