"""Small tokenizers of the three families, trained on a few English and Korean sentences, as bases to grow."""

import json
from io import BytesIO
from typing import Any

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from train.vocabulary.base import Base, from_pieces

ENGLISH = [
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "It's 2024; we're here, they'll come at 10:30 -- or won't they?",
    "def f(x):\n    return x + 1  # adds one\n\n\nprint(f(2))",
    "    Indented twice,\n\tand with a tab.\r\nAnd   runs   of spaces.",
    "e-mail: someone@example.org, 100% (really!) … “quoted” — dashed",
]
KOREAN_IN_BASE = ["안녕하세요 그리고 이것은 가나다 입니다", "나는 학교에 가다"]
"""The little Korean that an English model has seen."""
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
FAMILIES = ("sentencepiece", "llama-3", "gpt-neox")


def small_base(family: str) -> Base:
    """A base of one of FAMILIES."""
    return {"sentencepiece": _pieces, "llama-3": _llama_3, "gpt-neox": _neox}[family]()


def _pieces() -> Base:
    writer = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ENGLISH * 20, *KOREAN_IN_BASE]),
        model_writer=writer,
        model_type="bpe",
        vocab_size=448,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        max_sentence_length=10_000,
        minloglevel=2,
    )
    proto = ModelProto.FromString(writer.getvalue())
    for piece in proto.pieces:  # as Mistral's are: where a float has no place for a score one lower
        if len(piece.piece) == 1:
            piece.score = -1e9
    model = proto.SerializeToString()
    return Base(state=from_pieces(model), family="sentencepiece", piece_model=model)


def _llama_3() -> Base:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return _byte_level(tokenizer, special=("<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"))


def _neox() -> Base:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _byte_level(tokenizer, special=("<|endoftext|>", "<|padding|>"))


def _byte_level(tokenizer: Tokenizer, special: tuple[str, ...]) -> Base:
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=440, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*ENGLISH * 20, *KOREAN_IN_BASE], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    state: dict[str, Any] = json.loads(tokenizer.to_str())
    return Base(state=state, family="byte-level")
