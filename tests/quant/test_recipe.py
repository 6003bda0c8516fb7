"""Presets, recipes from elsewhere, and options that change them."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from malmoi.errors import RecipeError
from malmoi.servable import why_gptq_is_refused
from quant.gptq import settings
from quant.recipe import BNB, GPTQ, Bnb, Calibration, Gptq, changed, find_bnb, find_gptq, refuse_options

OURS = Gptq(name="ours", source="a test")


@pytest.mark.parametrize("recipe", [*BNB.values(), *GPTQ.values()], ids=lambda recipe: str(recipe.source)[:20])
def test_what_is_assumed_is_a_field(recipe: Bnb | Gptq) -> None:
    assert recipe.source
    assert set(recipe.assumed) <= {field.name for field in fields(recipe)}


def test_the_bnb_presets_are_qloras_and_what_transformers_does_unasked() -> None:
    from transformers import BitsAndBytesConfig

    unasked = BitsAndBytesConfig(load_in_4bit=True)
    ours = BNB["erkhov-compat"]
    assert ours.quant_type == unasked.bnb_4bit_quant_type
    assert ours.double_quant == unasked.bnb_4bit_use_double_quant
    assert f"torch.{ours.compute_dtype}" == str(unasked.bnb_4bit_compute_dtype)
    assert (BNB["release"].quant_type, BNB["release"].compute_dtype) == ("nf4", "bfloat16")


@pytest.mark.parametrize("on_cpu", [True, False])
def test_vllm_serves_the_gptq_preset_everywhere(on_cpu: bool) -> None:
    assert why_gptq_is_refused(settings(replace(GPTQ["release"], group_size=128)), on_cpu=on_cpu) is None


def test_a_recipe_is_found_by_its_name_or_in_a_module() -> None:
    assert find_gptq("release") is GPTQ["release"]
    assert find_bnb("erkhov-compat") is BNB["erkhov-compat"]
    assert find_gptq(f"{__name__}:OURS") is OURS


def test_a_module_may_lie_in_the_current_directory(tmp_path: Path) -> None:
    """Of the command that is installed, too, whose own directory Python looks in instead."""
    (tmp_path / "mine.py").write_text("from quant.recipe import GPTQ\n\nRECIPE = GPTQ['release']\n")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "command"
    command.write_text("from quant.recipe import find_gptq\n\nprint(find_gptq('mine:RECIPE').name)\n")
    found = subprocess.run(
        [sys.executable, str(command)], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert found.stdout == "release\n"


@pytest.mark.parametrize("name", ["relaese", "no.such.module:RECIPE", f"{__name__}:BNB", "erkhov-compat", ":"])
def test_what_is_no_recipe_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="--recipe"):
        find_gptq(name)


def test_options_take_the_place_of_the_recipes_own() -> None:
    assert changed(OURS, bits=None, group_size=None) == OURS
    assert changed(OURS, bits=4, group_size=None) == OURS
    other = changed(OURS, bits=8, group_size=64)
    assert other == replace(OURS, bits=8, group_size=64, name="ours-8bit-g64"), "it is no longer ours"
    assert not changed(OURS, bits=None, group_size=-1).act_group_aware


def test_options_that_would_change_nothing_are_refused() -> None:
    refuse_options("--method bnb", bits=None, korean=())
    with pytest.raises(RecipeError, match="--group-size"):
        refuse_options("--method bnb", bits=None, korean=(), group_size=64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 5},
        {"group_size": 48},
        {"damp": 0.0},
        {"desc_act": True},
        {"group_size": -1},
        {"assumed": ("colour",)},
    ],
    ids=str,
)
def test_numbers_that_gptq_cannot_take_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        replace(OURS, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"num_tokens": 0}, {"row_tokens": 2}, {"english_share": 1.5}, {"min_occurrences": -1}], ids=str
)
def test_sizes_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="calibration"):
        Calibration(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"quant_type": "int4"}, {"compute_dtype": "float8"}], ids=str)
def test_what_bitsandbytes_does_not_know_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(RecipeError):
        replace(BNB["release"], **wrong)  # type: ignore[arg-type]
