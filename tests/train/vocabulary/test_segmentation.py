"""The segmentation of a word table against the tokenizers library, word by word."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from train.vocabulary.base import Base
from train.vocabulary.choosing import Candidates, Loop, find_candidates
from train.vocabulary.growing import grow
from train.vocabulary.pretokens import Pretokens


@pytest.fixture(scope="module")
def candidates(pretokens: Pretokens, base: Base, intermediate: list[str]) -> Candidates:
    return find_candidates(pretokens, base, intermediate, 3, set(), set())


def reference(base: Base, tokens: list[str], pretokens: Pretokens) -> list[list[str]]:
    """Every pre-token as the library encodes it, behind a line's end so that no prefix is added."""
    tokenizer = grow(base, tokens).tokenizer
    sentinel = len(tokenizer.encode("\n", add_special_tokens=False).ids)
    words = [f"\n{text}" for text in pretokens.texts.to_pylist()]
    return [found.tokens[sentinel:] for found in tokenizer.encode_batch(words, add_special_tokens=False)]


def ours(loop: Loop, candidates: Candidates) -> list[list[str]]:
    names = {number: token for token, number in candidates.universe.items()}
    found = loop.segmentation
    return [[names[int(number)] for number in found.tokens_of(word)] for word in range(len(found.words.counts))]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_word_after_every_change_is_encoded_as_by_the_library(
    data: st.DataObject, pretokens: Pretokens, base: Base, candidates: Candidates
) -> None:
    """Random closed vocabularies one after another: tokens die and come alive in any order."""
    loop = Loop(pretokens, base, candidates, threshold=3)
    for _ in range(2):
        seed = data.draw(st.integers(0, 2**32 - 1))
        chosen = np.random.default_rng(seed).random(len(candidates.tokens)) < 0.3
        alive = loop.closed(chosen & candidates.derivations.is_reached)
        loop.restrict(alive)
        tokens = [token for token, lives in zip(candidates.tokens, alive, strict=True) if lives]
        expected = reference(base, tokens, pretokens)
        found = ours(loop, candidates)
        for text, mine, theirs in zip(pretokens.texts.to_pylist(), found, expected, strict=True):
            assert mine == theirs, text


def test_counts_are_those_of_the_words(pretokens: Pretokens, base: Base, candidates: Candidates) -> None:
    loop = Loop(pretokens, base, candidates, threshold=3)
    loop.run()
    expected = np.zeros(len(loop.segmentation.alive), np.int64)
    for word in range(len(pretokens.words.counts)):
        np.add.at(expected, loop.segmentation.tokens_of(word), pretokens.words.counts[word])
    assert (loop.segmentation.token_counts == expected).all()
    assert loop.segmentation.num_encoded < 2 * len(pretokens.words.counts)


def test_only_words_that_lost_a_token_are_encoded_again(
    pretokens: Pretokens, base: Base, candidates: Candidates
) -> None:
    loop = Loop(pretokens, base, candidates, threshold=3)
    before = ours(loop, candidates)
    rare = loop.alive & (loop.counts < 30)
    alive = loop.closed(loop.alive & ~rare)
    died = {candidates.tokens[place] for place in np.flatnonzero(loop.alive & ~alive)}
    touched = [not died.isdisjoint(tokens) for tokens in before]
    num_encoded = loop.restrict(alive).num_encoded
    assert 0 < sum(touched) < len(touched)
    assert num_encoded == sum(touched)
    for tokens, later, was_touched in zip(before, ours(loop, candidates), touched, strict=True):
        assert (tokens != later) == was_touched
