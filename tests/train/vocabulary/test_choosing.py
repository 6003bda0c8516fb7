from collections import Counter

import pytest

from malmoi.errors import RecipeError
from tests.support.naive_vocabulary import naive_choice
from train.vocabulary.base import Base
from train.vocabulary.choosing import Choice, choose_tokens
from train.vocabulary.growing import grow
from train.vocabulary.pretokens import Pretokens

THRESHOLD = 4


def size(base: Base, about: int = 128) -> int:
    return about - (base.num_ids + about) % 64


@pytest.fixture(scope="module")
def choice(pretokens: Pretokens, base: Base, intermediate: list[str]) -> Choice:
    return choose_tokens(pretokens, base, intermediate, threshold=THRESHOLD, num_new=size(base))


def test_same_tokens_and_counts_as_the_naive_loop(
    texts: list[str], base: Base, intermediate: list[str], choice: Choice
) -> None:
    tokens, counts = naive_choice(texts, base, intermediate, threshold=THRESHOLD, num_new=size(base))
    assert choice.tokens == tokens
    assert choice.counts == counts
    assert len(choice.rounds) > 2, "a loop that ends at once shows nothing"


def test_every_pretoken_is_counted(texts: list[str], base: Base, pretokens: Pretokens) -> None:
    found: Counter[str] = Counter()
    for text in texts:
        found.update(character for character in text if "가" <= character <= "힣" or "ㄱ" <= character <= "ㆎ")
    assert {chr(code): int(count) for code, count in enumerate(pretokens.syllables) if count} == dict(found)


def test_counts_are_those_of_the_real_tokenizer(texts: list[str], base: Base, choice: Choice) -> None:
    grown = grow(base, choice.tokens).tokenizer
    found = Counter(
        token for encoding in grown.encode_batch(texts, add_special_tokens=False) for token in encoding.tokens
    )
    assert [found[token] for token in choice.tokens] == choice.counts


def test_an_example_holds_its_token(base: Base, choice: Choice) -> None:
    grown = grow(base, choice.tokens).tokenizer
    with_examples = [entry for entry in zip(choice.tokens, choice.examples, strict=True) if entry[1]]
    assert len(with_examples) > len(choice.tokens) / 2
    for token, words in with_examples:
        assert any(token in grown.encode(f"\n{word}", add_special_tokens=False).tokens for word in words)


def test_a_persons_hand_is_obeyed(
    pretokens: Pretokens, base: Base, intermediate: list[str], choice: Choice
) -> None:
    unwanted = next(text for token in choice.tokens if len(text := base.text(token) or "") > 1)
    changed = choose_tokens(
        pretokens,
        base,
        intermediate,
        threshold=THRESHOLD,
        num_new=size(base),
        keep=["두칸들여쓰기"],
        drop=[unwanted],
    )
    texts = [base.text(token) for token in changed.tokens]
    assert unwanted not in texts
    assert "두칸들여쓰기" in texts
    encoded = grow(base, changed.tokens).tokenizer.encode("x두칸들여쓰기", add_special_tokens=False)
    assert base.token("두칸들여쓰기") in encoded.tokens


def test_a_size_that_needs_filling_up_is_refused(
    pretokens: Pretokens, base: Base, intermediate: list[str]
) -> None:
    with pytest.raises(RecipeError, match="a multiple of 64"):
        choose_tokens(pretokens, base, intermediate, threshold=THRESHOLD, num_new=size(base) + 1)


def test_too_little_text_is_said(pretokens: Pretokens, base: Base, intermediate: list[str]) -> None:
    with pytest.raises(RecipeError, match="lower --threshold or --size"):
        choose_tokens(pretokens, base, intermediate, threshold=10**6, num_new=size(base))


def test_a_kept_text_that_no_merge_can_make_is_said(
    pretokens: Pretokens, base: Base, intermediate: list[str]
) -> None:
    with pytest.raises(RecipeError, match="--keep"):
        choose_tokens(pretokens, base, intermediate, threshold=4, num_new=size(base), keep=["한 국"])
