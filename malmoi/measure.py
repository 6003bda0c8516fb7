"""Definitions of what is measured, on plain numbers, so that every room means the same by a word.

A character is a Unicode code point of the text as it stands (one Hangul syllable in NFC is one); a byte is
a byte of its UTF-8. Tokens per second flatter a tokenizer that needs many; characters and bytes do not.
"""

import math


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Bits of information per UTF-8 byte, from the summed negative log likelihood of a text.

    Units: nats in, bits per UTF-8 byte out. Comparable between tokenizers, as perplexity is not.
    """
    return total_nats / math.log(2) / num_bytes


def bits_per_character(total_nats: float, num_characters: int) -> float:
    """Bits of information per character, likewise; Korean ones have three bytes."""
    return total_nats / math.log(2) / num_characters


def perplexity(total_nats: float, num_tokens: int) -> float:
    """exp of the mean negative log likelihood per token; comparable within one tokenizer only."""
    return math.exp(total_nats / num_tokens)


def tokens_per_character(num_tokens: int, text: str) -> float:
    """Fertility per character: how many tokens a tokenizer spends on one code point of `text`."""
    return num_tokens / len(text)


def tokens_per_word(num_tokens: int, text: str) -> float:
    """Fertility per word, a word being what stands between white space (in Korean, an eojeol)."""
    return num_tokens / len(text.split())


def seconds_per_character(duration_s: float, num_characters: int) -> float:
    """Seconds an answer took, from the first byte of the request to its own last, per character of it."""
    return duration_s / num_characters
