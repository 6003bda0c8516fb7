"""Which bytes only Hangul has, by trying every character there is."""

import random

import pytest

from tests.support.bases import FAMILIES, small_base
from train.vocabulary.base import BYTES, is_hangul


@pytest.mark.slow
def test_bytes_that_imply_hangul_occur_in_no_other_text() -> None:
    base = small_base("gpt-neox")
    others = [
        chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000 and not is_hangul(chr(code))
    ]
    pairs: set[bytes] = set()
    triples: set[bytes] = set()
    lasts = {character.encode()[-2:] for character in others}
    firsts = {character.encode()[:2] for character in others}
    for character in others:
        code = character.encode()
        pairs.update(code[place : place + 2] for place in range(len(code) - 1))
        triples.update(code[place : place + 3] for place in range(len(code) - 2))
    pairs |= {last[-1:] + first[:1] for last in lasts for first in firsts}
    triples |= {last + first[:1] for last in lasts for first in firsts}
    triples |= {last[-1:] + first for last in lasts for first in firsts}
    for code in [*pairs, *triples]:
        assert not base.implies_script("".join(BYTES[byte] for byte in code)), code.hex()


def test_a_syllables_beginning_implies_it() -> None:
    base = small_base("gpt-neox")
    generator = random.Random(0)
    syllables = [chr(code) for code in generator.sample(range(0xAC00, 0xD780), 500)]
    for character in [*syllables, "ㅋ", "ㅠ"]:
        assert base.implies_script(base.token(character)[:2])
    assert base.implies_script(base.token("힣"))
    assert not base.implies_script(base.token("힣")[:2]), "letters of another block begin so, too"


@pytest.mark.parametrize("family", FAMILIES)
def test_text_and_token_are_each_others_inverse(family: str) -> None:
    base = small_base(family)
    for text in (" 한국", "한국", "ㅋㅋ", "a b"):
        assert base.text(base.token(text)) == text
