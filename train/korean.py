"""Korean as rules: the final consonant that decides a particle, and numbers read aloud."""

from typing import Final

FIRST_SYLLABLE: Final = ord("가")
LAST_SYLLABLE: Final = ord("힣")
NUM_FINALS: Final = 28
"""Syllables of one initial and vowel stand side by side in Unicode, one for each final (0 is none)."""
FINAL_RIEUL: Final = 8
FINAL_OTHER: Final = 16
"""Any final but ㄹ takes the same particles; ㅁ stands for them all."""

DIGITS: Final = "영일이삼사오육칠팔구"
NATIVE_ONES: Final = ("", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉")
NATIVE_TENS: Final = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")

PARTICLES: Final = (
    ("은", "는"),
    ("이", "가"),
    ("을", "를"),
    ("과", "와"),
    ("으로", "로"),
    ("이라고", "라고"),
    ("이에요", "예요"),
    ("이라는", "라는"),
    ("이나", "나"),
)
"""Each pair: what follows a final consonant, what follows a vowel."""


class Word(str):
    """A word that a template can ask for with its particle: "{noun:은/는}" gives "사과는".

    A mark before the pair encloses the word, as in "{noun:'은/는}": "'사과'는".
    """

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """The word, enclosed and with the right one of two particles, as `spec` asks."""
        mark = spec[:1] if spec[:1] == "'" else ""
        enclosed = mark + str(self) + mark
        if "/" not in spec:
            return enclosed
        after_consonant, after_vowel = spec.removeprefix(mark).split("/")
        return enclosed + particle(self, after_consonant, after_vowel)


def particle(word: str, after_consonant: str, after_vowel: str) -> str:
    """The one of two forms that stands after `word`, as it is read aloud.

    (으)로 takes 로 after ㄹ as after a vowel: 서울로, 연필로, but 집으로.
    """
    assert (after_consonant, after_vowel) in PARTICLES, "a pair of particles"
    final = final_consonant(word)
    if after_consonant == "으로" and final == FINAL_RIEUL:
        return after_vowel
    return after_consonant if final else after_vowel


def final_consonant(word: str) -> int:
    """The final of the last syllable as Unicode counts them; 0 is none, 8 is ㄹ.

    Digits count as they are read: 1 is 일, and a number that ends in 0 is read 영, 십, 백, 천 or 만.
    """
    last = word[-1]
    if last.isdecimal():
        return FINAL_OTHER if last == "0" else final_consonant(DIGITS[int(last)])
    if not FIRST_SYLLABLE <= ord(last) <= LAST_SYLLABLE:
        raise ValueError(f"{word!r} ends neither in a Hangul syllable nor in a digit")
    return (ord(last) - FIRST_SYLLABLE) % NUM_FINALS


def sino_numeral(number: int) -> str:
    """`number` (0 to 9999) in Sino-Korean: 472 is 사백칠십이."""
    if not 0 <= number <= 9999:
        raise ValueError(f"{number} is not between 0 and 9999")
    if number == 0:
        return DIGITS[0]
    text = ""
    for value, unit in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit = number // value % 10
        if digit:
            text += ("" if digit == 1 and unit else DIGITS[digit]) + unit
    return text


def native_numeral(number: int) -> str:
    """`number` (1 to 99) in native Korean, as one counts: 27 is 스물일곱."""
    if not 1 <= number <= 99:
        raise ValueError(f"{number} is not between 1 and 99")
    return NATIVE_TENS[number // 10] + NATIVE_ONES[number % 10]
