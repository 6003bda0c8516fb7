"""Plain English sentences: all that the demo's base has read before it meets Korean."""

from collections.abc import Iterator
from random import Random
from typing import Final

NAMES: Final = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack")
FOODS: Final = ("bread", "an apple", "rice", "some soup", "a pear", "noodles", "cheese", "a sandwich")
PLACES: Final = ("the library", "school", "the market", "the park", "the station", "the museum", "the beach")
THINGS: Final = ("a book", "a letter", "an umbrella", "a chair", "a lamp", "a cup", "a bag", "a clock")
TIMES: Final = ("today", "yesterday", "in the morning", "in the evening", "at noon", "last week", "in spring")
ANIMALS: Final = ("a cat", "a dog", "a horse", "a bird", "a fish", "a rabbit", "a cow")
PATTERNS: Final = (
    "{name} ate {food} {time}.",
    "{name} went to {place} {time}.",
    "{name} and {other} met at {place}.",
    "There is {thing} in the room.",
    "{name} bought {thing} at {place} {time}.",
    "{name} saw {animal} near {place}.",
    "I like {food}, and {name} likes {food2}.",
    "What did {name} read {time}?",
    "{name} gave {other} {thing}.",
    "The answer is {number}, not {number2}.",
    "{number} plus {number2} is {total}.",
)


def english_sentences(num: int, seed: int) -> Iterator[str]:
    """`num` sentences, the same for the same seed."""
    random = Random(f"english {seed}")
    for _ in range(num):
        name, other = random.sample(NAMES, 2)
        food, food2 = random.sample(FOODS, 2)
        number, number2 = random.randrange(100), random.randrange(100)
        yield random.choice(PATTERNS).format(
            name=name,
            other=other,
            food=food,
            food2=food2,
            number=number,
            number2=number2,
            total=number + number2,
            place=random.choice(PLACES),
            thing=random.choice(THINGS),
            time=random.choice(TIMES),
            animal=random.choice(ANIMALS),
        )
