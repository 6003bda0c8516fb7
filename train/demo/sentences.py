"""Plain Korean sentences about everyday things, with the particle every noun asks for."""

from random import Random
from typing import Final

from train.demo import facts
from train.demo.split import is_held_out
from train.korean import Word

TIMES: Final = ("오늘", "어제", "아침에", "점심때", "저녁에", "주말에", "방학에", "지난주에", "봄에", "가을에")
PATTERNS: Final = (
    "{name:은/는} {time} {food:을/를} 먹었습니다.",
    "{name:은/는} {place}에서 {food:을/를} 먹었습니다.",
    "{name:이/가} {drink:을/를} 마셨습니다.",
    "{time} {name:과/와} {other:이/가} {place}에서 만났습니다.",
    "{name:은/는} {time} {place:으로/로} 갔습니다.",
    "{name:은/는} {reading:을/를} 읽고 있습니다.",
    "{name:은/는} 가게에서 {thing:과/와} {thing2:을/를} 샀습니다.",
    "방 안에 {thing:이/가} 있습니다.",
    "{thing:과/와} {thing2:은/는} 서로 다릅니다.",
    "{person:은/는} {time} {place}에 있었습니다.",
    "{person:이/가} {reading:을/를} 읽습니다.",
    "{place}에서 {animal:을/를} 보았습니다.",
    "저는 {animal:을/를} 좋아합니다.",
    "저는 {food:과/와} {food2:을/를} 자주 먹습니다.",
    "{name}의 {thing:은/는} 새것입니다.",
    "{name:은/는} {idea:을/를} 중요하게 생각합니다.",
    "{idea:이/가} 무엇인지 {person}에게 물었습니다.",
    "{nature:을/를} 보면 {idea:이/가} 떠오릅니다.",
    "우리는 내일 {place:으로/로} 갑니다.",
    "{food:이/가} 아주 맛있습니다.",
    "이것은 {name}의 {reading}입니다.",
    "{name:은/는} {thing:으로/로} 무엇을 할지 생각했습니다.",
    "{person:과/와} {person2:은/는} 같은 마을에 삽니다.",
    "{time} {person:이/가} {name}에게 {thing:을/를} 주었습니다.",
)
SLOTS: Final = {
    "food": facts.FOODS,
    "drink": facts.DRINKS,
    "reading": facts.READINGS,
    "thing": facts.THINGS,
    "place": facts.PLACES,
    "animal": facts.ANIMALS,
    "nature": facts.NATURE,
    "person": facts.PEOPLE,
    "idea": facts.IDEAS,
}


def taught(nouns: tuple[str, ...]) -> list[Word]:
    """Those of `nouns` that no held-out question is about, in their order."""
    return [Word(noun) for noun in nouns if not is_held_out("noun", noun)]


TAUGHT_SLOTS: Final = {slot: taught(nouns) for slot, nouns in SLOTS.items()}


def draw_name(random: Random) -> Word:
    """A full name of three syllables, as Korean names mostly are."""
    surname, last = random.choice(facts.SURNAMES), random.choice(facts.LAST_NAMES)
    first = random.choice([syllable for syllable in facts.FIRST_NAMES if syllable != last])
    return Word(surname + first + last)


def draw_taught_name(random: Random) -> Word:
    """A name that no held-out question is about."""
    while is_held_out("noun", name := draw_name(random)):
        pass
    return name


def draw_sentence(random: Random) -> str:
    """One sentence; no noun or name in it that a held-out question asks about."""
    values = {"name": draw_taught_name(random)}
    while (other := draw_taught_name(random)) == values["name"]:
        pass
    values["other"] = other
    for slot, nouns in TAUGHT_SLOTS.items():
        values[slot], values[f"{slot}2"] = random.sample(nouns, 2)
    return random.choice(PATTERNS).format(**values, time=random.choice(TIMES))
