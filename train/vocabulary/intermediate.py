"""The intermediate tokenizer of EEVE's step 1: plain BPE on the new script alone, the source of candidates.

BPE and not Unigram: every token of a BPE vocabulary is made of two others of it.
"""

from pathlib import Path

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from train.corpus.words import ROWS_AT_ONCE
from train.vocabulary.base import SPACE, Base
from train.vocabulary.pretokens import Pretokens

MAX_CHARACTERS = 16
"""Of a token; more would be names and formulas."""


def train_intermediate(pretokens: Pretokens, base: Base, size: int, model: Path) -> None:
    """Trains `size` tokens on the pre-tokens and their counts, by SentencePiece's own trainer, into `model`.

    With fewer pre-tokens than it takes, as many tokens as there are.
    """
    table = model.with_suffix(".tsv")
    with table.open("w", encoding="utf-8") as lines:
        for start in range(0, len(pretokens.texts), ROWS_AT_ONCE):
            texts = pretokens.texts.slice(start, ROWS_AT_ONCE).to_pylist()
            counts = pretokens.words.counts[start : start + ROWS_AT_ONCE].tolist()
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
