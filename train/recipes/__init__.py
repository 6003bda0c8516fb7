"""Published models as data, one to a file, and those that a command knows by name."""

from typing import Final

from train.recipe import Growth
from train.recipes.eeve import EEVE
from train.recipes.tedllm import TEDLLM

GROWTHS: Final[dict[str, Growth]] = {growth.name: growth for growth in (EEVE, TEDLLM)}
