import unicodedata

import pytest

from train.korean import Word, final_consonant, native_numeral, particle, sino_numeral

# From the standard orthography, by hand: no word here was put through the code.
TABLE = [
    ("사과", "사과는", "사과가", "사과를", "사과와", "사과로"),
    ("책", "책은", "책이", "책을", "책과", "책으로"),
    ("연필", "연필은", "연필이", "연필을", "연필과", "연필로"),
    ("서울", "서울은", "서울이", "서울을", "서울과", "서울로"),
    ("집", "집은", "집이", "집을", "집과", "집으로"),
    ("부엌", "부엌은", "부엌이", "부엌을", "부엌과", "부엌으로"),
    ("닭", "닭은", "닭이", "닭을", "닭과", "닭으로"),
    ("0", "0은", "0이", "0을", "0과", "0으로"),
    ("1", "1은", "1이", "1을", "1과", "1로"),
    ("2", "2는", "2가", "2를", "2와", "2로"),
    ("3", "3은", "3이", "3을", "3과", "3으로"),
    ("4", "4는", "4가", "4를", "4와", "4로"),
    ("5", "5는", "5가", "5를", "5와", "5로"),
    ("6", "6은", "6이", "6을", "6과", "6으로"),
    ("7", "7은", "7이", "7을", "7과", "7로"),
    ("8", "8은", "8이", "8을", "8과", "8로"),
    ("9", "9는", "9가", "9를", "9와", "9로"),
    ("40", "40은", "40이", "40을", "40과", "40으로"),
    ("300", "300은", "300이", "300을", "300과", "300으로"),
]
PAIRS = ("은/는", "이/가", "을/를", "과/와", "으로/로")


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_particles_are_those_of_the_table(row: tuple[str, ...]) -> None:
    word, *expected = row
    assert [format(Word(word), pair) for pair in PAIRS] == expected


def test_a_particle_stands_after_the_closing_mark() -> None:
    assert format(Word("사과"), "'은/는") == "'사과'는"
    assert format(Word("책"), "'") == "'책'"
    assert f"{Word('책')}" == "책"


def test_the_final_is_the_one_unicode_decomposition_shows() -> None:
    syllables = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
    assert len(syllables) == 11_172
    for syllable in syllables:
        parts = unicodedata.normalize("NFD", syllable)
        expected = ord(parts[2]) - 0x11A7 if len(parts) == 3 else 0
        assert final_consonant(syllable) == expected


def test_a_word_in_another_script_is_refused() -> None:
    with pytest.raises(ValueError, match="Hangul"):
        particle("ABC", "은", "는")


def test_sino_numerals_read_back_to_the_number() -> None:
    units = {"십": 10, "백": 100, "천": 1000}
    for number in range(1, 10_000):
        total = digit = 0
        for letter in sino_numeral(number):
            if letter in units:
                total, digit = total + (digit or 1) * units[letter], 0
            else:
                digit = "영일이삼사오육칠팔구".index(letter)
        assert total + digit == number
    assert [sino_numeral(number) for number in (0, 10, 111, 472, 2026)] == [
        "영", "십", "백십일", "사백칠십이", "이천이십육",
    ]  # fmt: skip


def test_native_numerals_are_distinct_and_known() -> None:
    assert len({native_numeral(number) for number in range(1, 100)}) == 99
    assert [native_numeral(number) for number in (1, 10, 20, 27, 55, 99)] == [
        "하나", "열", "스물", "스물일곱", "쉰다섯", "아흔아홉",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [-1, 10_000])
def test_sino_numerals_have_bounds(number: int) -> None:
    with pytest.raises(ValueError, match="between"):
        sino_numeral(number)


@pytest.mark.parametrize("number", [0, 100])
def test_native_numerals_have_bounds(number: int) -> None:
    with pytest.raises(ValueError, match="between"):
        native_numeral(number)
