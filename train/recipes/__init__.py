"""Published models as data, one to a file, and those that a command knows by name."""

from collections.abc import Mapping
from typing import Final, TypeVar

from malmoi.elsewhere import find_elsewhere
from malmoi.errors import RecipeError
from train.recipe import Course, Growth, Pretraining, Tuning
from train.recipes import eeve, kollama2, korae, tedllm

Kind = TypeVar("Kind")
GROWTHS: Final[dict[str, Growth]] = {growth.name: growth for growth in (eeve.EEVE, tedllm.TEDLLM)}
PRETRAININGS: Final[dict[str, Pretraining]] = {
    recipe.name: recipe
    for recipe in (
        *(eeve.ON_SOLAR, eeve.ON_PHI_2, eeve.ON_TIED),
        tedllm.IN_THREE_STAGES,
        *(kollama2.LORA, kollama2.QLORA, kollama2.FULL),
    )
}
ANSWERS: Final[dict[str, Tuning]] = {
    recipe.name: recipe for recipe in (korae.SFT, kollama2.CHAT_LORA, kollama2.CHAT_QLORA, kollama2.CHAT_FULL)
}
"""Learning from dialogues."""
PREFERENCES: Final[dict[str, Tuning]] = {korae.DPO.name: korae.DPO}
"""Learning from preferences."""
COURSES: Final[dict[str, Course]] = {
    korae.COURSE.name: korae.COURSE,
    **{
        recipe.name: Course(name=recipe.name, answers=recipe)
        for recipe in (kollama2.CHAT_LORA, kollama2.CHAT_QLORA, kollama2.CHAT_FULL)
    },
}


def find_recipe(name: str, known: Mapping[str, Kind], kind: type[Kind]) -> Kind:
    """The recipe of a name that is known, or `my.module:RECIPE`, one from elsewhere.

    Raises: RecipeError if there is none, or it is of another kind.
    """
    if name in known:
        return known[name]
    found = find_elsewhere(name, kind) if ":" in name else f"known are {', '.join(known)}"
    if isinstance(found, kind):
        return found
    raise RecipeError(
        f"--recipe {name}",
        expected=f"a {kind.__name__}, by its name or as my.module:RECIPE",
        found=str(found),
        next_step="name another",
    )
