"""How a checkpoint is quantized: frozen values, and those that were published, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal, TypeVar, get_args

from malmoi.elsewhere import find_elsewhere
from malmoi.errors import RecipeError

Bits = Literal[2, 3, 4, 8]
GroupSize = Literal[32, 64, 128, -1]
Dtype = Literal["bfloat16", "float16", "float32"]
Kind = TypeVar("Kind")
FITTED_GROUPS: Final[tuple[GroupSize, ...]] = (128, 64, 32)
"""Group sizes that are tried, in this order, where a recipe leaves it to the checkpoint's widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bnb:
    """bitsandbytes, 4 bits: each weight by itself, in blocks of 64 along a row. Nothing is calibrated."""

    name: str
    source: str
    assumed: tuple[str, ...] = ()
    """Fields that the source does not state."""
    quant_type: Literal["nf4", "fp4"]
    double_quant: bool
    """Whether a block's scale is quantized, too: 4.13 bits for a weight in place of 4.5."""
    compute_dtype: Dtype
    """What a layer multiplies in, once it is loaded."""

    def __post_init__(self) -> None:
        _check_choice(self, "quant_type", ("nf4", "fp4"))
        _check_choice(self, "compute_dtype", get_args(Dtype))
        _check_assumed(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How much text GPTQ is shown."""

    num_tokens: int = 1 << 17
    """In all, of which half of the Korean is drawn at random, and more where new tokens leave room."""
    row_tokens: int = 512
    """At most; longer texts are cut into several rows."""
    english_share: float = 0.5
    """Of the tokens that are drawn, where there is English text."""
    min_occurrences: int = 1
    """Of each new token, where the texts have so many."""
    piece_tokens: int = 32
    """Of the rows that are cut out of the texts for new tokens that the draw lacks."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_tokens", 1, None),
            ("row_tokens", 16, None),
            ("english_share", 0, 1),
            ("min_occurrences", 0, None),
            ("piece_tokens", 16, None),
        ):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                limits = f"at least {low}" if high is None else f"between {low} and {high}"
                raise _wrong(f"calibration.{name}", limits, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gptq:
    """GPTQ (arXiv:2210.17323): what rounding a weight loses is made up for by those not yet rounded."""

    name: str
    source: str
    assumed: tuple[str, ...] = ()
    bits: Bits = 4
    group_size: GroupSize | None = None
    """Inputs that share a scale; -1: all. None: the first of FITTED_GROUPS that divides every layer's width."""
    sym: bool = True
    """Whether zero is in the middle of the scale."""
    desc_act: bool = False
    """Whether inputs are taken by falling activation, and the order stored: slower to serve."""
    act_group_aware: bool = True
    """Whether groups are taken by falling activation; no order is stored. Not together with desc_act."""
    damp: float = 0.005
    """Share of the Hessian's mean diagonal that is added to the diagonal."""
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        _check_choice(self, "bits", get_args(Bits))
        _check_choice(self, "group_size", (*get_args(GroupSize), None))
        if not 0 < self.damp < 1:
            raise _wrong("damp", "between 0 and 1", self.damp)
        if self.desc_act and self.act_group_aware:
            raise _wrong("act_group_aware", "False, where desc_act is True", True)
        if self.group_size == -1 and self.act_group_aware:
            raise _wrong("act_group_aware", "False, where all inputs are one group", True)
        _check_assumed(self)


def find_bnb(name: str) -> Bnb:
    """The recipe of a name that is known, or of `my.module:RECIPE`. Raises: RecipeError if there is none."""
    return _found(name, BNB, Bnb)


def find_gptq(name: str) -> Gptq:
    """The recipe of a name that is known, or of `my.module:RECIPE`. Raises: RecipeError if there is none."""
    return _found(name, GPTQ, Gptq)


def changed(recipe: Gptq, *, bits: Bits | None, group_size: GroupSize | None) -> Gptq:
    """The recipe with what is given in place of its own, and in its name.

    Groups by activation need groups: -1 goes without.
    """
    if bits not in (None, recipe.bits):
        recipe = replace(recipe, bits=bits, name=f"{recipe.name}-{bits}bit")
    if group_size not in (None, recipe.group_size):
        recipe = replace(
            recipe,
            group_size=group_size,
            act_group_aware=recipe.act_group_aware and group_size != -1,
            name=f"{recipe.name}-g{group_size}",
        )
    return recipe


def refuse_options(where: str, **options: object) -> None:
    """Raises RecipeError for the first option that is given and would change nothing."""
    given = next((name for name, value in options.items() if value not in (None, ())), None)
    if given is not None:
        option = f"--{given.replace('_', '-')}"
        raise RecipeError(
            where, expected=f"no {option}", found="one", next_step="leave it out: GPTQ alone has it"
        )


def _found(name: str, known: Mapping[str, Kind], kind: type[Kind]) -> Kind:
    if name in known:
        return known[name]
    found = find_elsewhere(name, kind) if ":" in name else f"known are {', '.join(known)}"
    if isinstance(found, kind):
        return found
    raise RecipeError(
        f"--recipe {name}",
        expected=f"a quant.recipe.{kind.__name__}, by its name or as my.module:RECIPE",
        found=str(found),
        next_step="name another",
    )


def _check_choice(recipe: Bnb | Gptq, name: str, choices: tuple[object, ...]) -> None:
    if getattr(recipe, name) not in choices:
        raise _wrong(name, f"one of {', '.join(map(str, choices))}", getattr(recipe, name))


def _check_assumed(recipe: Bnb | Gptq) -> None:
    unknown = set(recipe.assumed) - {each.name for each in fields(recipe)}
    if unknown:
        raise _wrong("assumed", "names of fields", min(unknown))


def _wrong(name: str, expected: str, found: object) -> RecipeError:
    return RecipeError(name, expected=expected, found=str(found), next_step="change it")


BNB: Final[Mapping[str, Bnb]] = {
    recipe.name: recipe
    for recipe in (
        Bnb(
            name="release",
            source="QLoRA, arXiv:2305.14314, section 3: nf4, double quantization, computing in bfloat16",
            quant_type="nf4",
            double_quant=True,
            compute_dtype="bfloat16",
        ),
        Bnb(
            name="erkhov-compat",
            source=(
                "RichardErkhov's EEVE-Korean-Instruct-10.8B-v1.0-4bits: its files hold 6.56 GB, as 4 bits, "
                "blocks of 64 and scales in float32 come to; the rest is what transformers does unasked"
            ),
            assumed=("quant_type", "compute_dtype"),
            quant_type="fp4",
            double_quant=False,
            compute_dtype="float32",
        ),
    )
}
GPTQ: Final[Mapping[str, Gptq]] = {
    recipe.name: recipe
    for recipe in (
        Gptq(
            name="release",
            source=(
                "GPTQModel 7.6.0's own numbers but for the damping (its own: 0.05): 4 bits, groups of 128, "
                "symmetric, groups by activation; vLLM 0.32 serves no other bits, and neither sym=false nor "
                "desc_act=true"
            ),
            assumed=("damp", "calibration"),
        ),
    )
}
