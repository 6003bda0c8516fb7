"""Metric definitions against hand-worked values."""

import math

import pytest

from malmoi import measure


def test_a_fair_coin_per_byte_is_one_bit_per_byte() -> None:
    assert measure.bits_per_byte(10 * math.log(2), 10) == pytest.approx(1.0)


def test_uniform_guess_over_a_vocabulary_has_its_size_as_perplexity() -> None:
    assert measure.perplexity(7 * math.log(384), 7) == pytest.approx(384)


def test_fertility_counts_code_points_and_eojeols() -> None:
    assert measure.tokens_per_character(12, "서울에 산다") == 2.0
    assert measure.tokens_per_word(6, "서울에 산다") == 3.0


def test_seconds_per_character() -> None:
    assert measure.seconds_per_character(2.0, 40) == 0.05
