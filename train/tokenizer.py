"""A tokenizer trained from text, in the shape Llama 2's has: BPE with byte fallback, and nothing added."""

import json
from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from malmoi import chat
from malmoi.errors import RecipeError

UNK: Final = "<unk>"
BOS: Final = "<s>"
EOS: Final = "</s>"
BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
SPACE: Final = "▁"
FORMAT_WEIGHT: Final = 1000
"""How often the format's own strings are counted: they stand in every conversation."""


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, max_length: int, *, knows_korean: bool = True
) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly `vocab_size` tokens that carries the KoRAE template.

    One that does not know Korean spells the format's Korean, as all other, in bytes: a base to grow.

    Words are cut at spaces, a digit is always a token of its own, and so is a line's end. Nothing stands
    before a text and a token that is not there is spelled in UTF-8 bytes, so that text comes back as it was.

    Raises: RecipeError if the texts are too few for so many tokens.
    """
    trained = _untrained(BPE())
    num_reserved = len((UNK, BOS, EOS)) + len(BYTES)
    trainer = BpeTrainer(vocab_size=vocab_size - num_reserved, show_progress=False)
    trained.train_from_iterator([*_format_texts(knows_korean=knows_korean), *texts], trainer)
    tokenizer = _untrained(_with_bytes(trained))
    if tokenizer.get_vocab_size() != vocab_size:
        raise RecipeError(
            "the text to train a tokenizer from",
            expected=f"enough of it for {vocab_size} tokens",
            found=f"enough for {tokenizer.get_vocab_size()}",
            next_step="give more text, or a recipe with a smaller vocabulary",
        )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (UNK, BOS, EOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=UNK,  # never eos: where padding is masked, the eos an answer ends in would be masked with it
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        chat_template=chat.TEMPLATE,
    )


def _untrained(model: BPE) -> Tokenizer:
    """`model` between the steps that cut a text into words and put it together again."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _with_bytes(trained: Tokenizer) -> BPE:
    """The trained model with special tokens and bytes in front, as Llama 2 numbers them."""
    state = json.loads(trained.to_str())["model"]
    learnt = sorted(state["vocab"], key=state["vocab"].__getitem__)
    vocabulary = {token: number for number, token in enumerate((UNK, BOS, EOS, *BYTES, *learnt))}
    merges = [tuple(pair) for pair in state["merges"]]
    return BPE(vocab=vocabulary, merges=merges, unk_token=UNK, fuse_unk=True, byte_fallback=True)


def _format_texts(*, knows_korean: bool) -> list[str]:
    """What every conversation contains, so that it costs few tokens."""
    fixed = [*chat.HEADERS.values(), "\n", *([chat.DEFAULT_SYSTEM_PROMPT] if knows_korean else [])]
    return fixed * FORMAT_WEIGHT
