"""The reference of commands, recipes and settings, out of the code.

    .venv/bin/python docs/make_reference.py >docs/reference.md

A test compares the page with what this prints.
"""

import ast
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from typing import Any, Final

import quant.__main__
import server.__main__
import train.__main__
from malmoi.markdown import table
from quant.gate import GATE, KOREAN
from quant.recipe import BNB, GPTQ
from train.corpus.preparation import EVERYTHING
from train.recipe import Pretraining, Stage
from train.recipes import ANSWERS, COURSES, GROWTHS, PREFERENCES, PRETRAININGS, demo
from train.recipes.polyglot import POLYGLOT

COLUMNS: Final = 80
PROGRAMS: Final[Mapping[str, tuple[Callable[[], None], tuple[str, ...]]]] = {
    "malmoi-train": (
        train.__main__.main,
        (
            *("demo", "corpus", "vocabulary", "pretrain", "data", "rate", "sft", "dpo", "run"),
            *("evaluate", "compare"),
        ),
    ),
    "malmoi-quant": (quant.__main__.main, ("export", "check", "release")),
    "malmoi-serve": (server.__main__.main, ("", "keys add", "keys list", "keys revoke")),
}
RECIPES: Final[Sequence[tuple[str, Mapping[str, Any]]]] = (
    ("malmoi-train corpus --recipe", {"(none)": EVERYTHING, "polyglot": POLYGLOT}),
    ("malmoi-train vocabulary --recipe", {**GROWTHS, "train.recipes.demo:GROWTH": demo.GROWTH}),
    ("malmoi-train pretrain --recipe", {**PRETRAININGS, "train.recipes.demo:STAGES": demo.STAGES}),
    ("malmoi-train sft --recipe", {**ANSWERS, "train.recipes.demo:ANSWERS": demo.ANSWERS}),
    ("malmoi-train dpo --recipe", {**PREFERENCES, "train.recipes.demo:PREFERENCES": demo.PREFERENCES}),
    ("malmoi-train run --recipe", COURSES),
    ("malmoi-quant export --method gptq --recipe", GPTQ),
    ("malmoi-quant export --method bnb --recipe", BNB),
    ("malmoi-quant release --gate", {"(none)": GATE, "quant.gate:KOREAN": KOREAN}),
)
ABOUT: Final = ("name", "source", "assumed")
"""Fields that are told below a table."""
STAGE: Final = ("name", "input_rows", "output_rows", "body", "tokens", "learning_rate", "decay", "warmup_steps")
MARK: Final = " \\*"


def page() -> Iterator[str]:
    """The page, paragraph by paragraph."""
    yield "# Reference"
    yield "Made by `.venv/bin/python docs/make_reference.py >docs/reference.md` out of the code; do not edit."
    yield "## Commands"
    for program, (main, commands) in PROGRAMS.items():
        for command in commands:
            name = f"{program} {command}".strip()
            yield f"### {name}"
            yield f"```text\n{help_of(main, program, command)}```"
    yield "## Recipes"
    yield (
        "What an option of that name takes, and the numbers that it stands for; `my.module:RECIPE` is one of "
        "your own. \\* is a value that the source does not state."
    )
    for option, recipes in RECIPES:
        yield f"### {option}"
        yield from described(recipes)


def help_of(main: Callable[[], None], program: str, command: str) -> str:
    """What `PROGRAM COMMAND --help` prints in 80 columns."""
    os.environ["COLUMNS"] = str(COLUMNS)
    sys.argv = [program, *command.split(), "--help"]
    text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    with redirect_stdout(text), suppress(SystemExit):
        main()
    text.seek(0)
    return "".join(f"{line.rstrip()}\n" for line in text.read().splitlines())


def described(recipes: Mapping[str, Any]) -> Iterator[str]:
    """A table of what the recipes set, their stages, and where they come from."""
    flat = {name: dict(settings(recipe)) for name, recipe in recipes.items()}
    meanings = {name: text for recipe in recipes.values() for name, text in meanings_of(recipe)}
    names = [name for name in meanings if any(name in values for values in flat.values())]
    lines = [
        [f"`{name}`", meanings[name], *(cell(values.get(name)) for values in flat.values())] for name in names
    ]
    yield table(["setting", "", *recipes], lines)
    for name, recipe in recipes.items():
        if isinstance(recipe, Pretraining):
            yield f"Stages of `{name}`:"
            head = [field + MARK * (f"stages.{field}" in recipe.assumed) for field in STAGE]
            yield table(head, [[cell(getattr(stage, field)) for field in STAGE] for stage in recipe.stages])
    if any(isinstance(recipe, Pretraining) for recipe in recipes.values()):
        told = (f"`{name}`: {text}" for name, text in documented(Stage).items() if name in STAGE and text)
        yield "Of a stage, " + "; ".join(text.rstrip(".") for text in told) + "."
    sources = [f"- `{name}`: {recipe.source}" for name, recipe in recipes.items() if hasattr(recipe, "source")]
    if sources:
        yield "\n".join(sources)


def settings(recipe: Any, prefix: str = "", assumed: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Each value by its dotted name, in words; with * where the source does not state it."""
    assumed = assumed or getattr(recipe, "assumed", ())
    for field in fields(recipe):
        name, value = prefix + field.name, getattr(recipe, field.name)
        if field.name in ABOUT:
            continue
        mark = MARK * any(name == one or name.startswith(f"{one}.") for one in assumed)
        if field.name == "stages":
            yield name, ", ".join(stage.name for stage in value) + mark
        elif hasattr(value, "source"):
            yield name, value.name
        elif is_dataclass(value):
            yield from settings(value, f"{name}.", assumed)
        else:
            yield name, cell(value) + mark


def meanings_of(recipe: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """What each setting is, by the same names."""
    texts = documented(type(recipe))
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if is_dataclass(value) and not hasattr(value, "source"):
            yield from meanings_of(value, f"{prefix}{field.name}.")
        elif field.name not in ABOUT:
            yield prefix + field.name, texts.get(field.name, "")


def documented(kind: type) -> Mapping[str, str]:
    """The text below each field of a class."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=target), ast.Expr(value=ast.Constant(value=str(told))):
                texts[ast.unparse(target)] = " ".join(told.split())
    return texts


def cell(value: object) -> str:
    """A value, as a table has it."""
    if value is None or value == () or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    print("\n\n".join(page()))
