"""The 4-bit exports of bitsandbytes, held against those that transformers writes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from malmoi.checkpoint import open_checkpoint
from malmoi.checkpoint_files import INPUT_ROWS, OUTPUT_ROWS
from quant.export import export
from quant.recipe import BNB, Bnb
from tests.support.checkpoints import create_tiny_checkpoint
from tests.support.running_text import distance, logits_of

MODELS: dict[str, dict[str, object]] = {
    "llama": {},
    "tied": {"tied": True},
    "float16": {"dtype": "float16"},
    "float32": {"dtype": "float32"},
    "gpt_neox": {"architecture": "gpt_neox"},
    "odd": {"intermediate_size": 200},
}


@pytest.fixture(scope="module", params=MODELS)
def parent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bnb") / request.param
    return create_tiny_checkpoint(out, **MODELS[request.param])  # type: ignore[arg-type]


def _of_transformers(parent: Path, out: Path, recipe: Bnb) -> Path:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=recipe.quant_type,
        bnb_4bit_use_double_quant=recipe.double_quant,
        bnb_4bit_compute_dtype=recipe.compute_dtype,
    )
    dtype = torch.float16 if parent.name == "float16" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(
        parent, quantization_config=config, dtype=dtype, device_map="cpu"
    )
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("recipe", BNB.values(), ids=BNB)
def test_the_files_are_those_of_transformers_bit_for_bit(parent: Path, tmp_path: Path, recipe: Bnb) -> None:
    theirs = _of_transformers(parent, tmp_path / "theirs", recipe)
    ours = export(parent, tmp_path / "ours", recipe=recipe).directory
    expected, found = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    configs = [json.loads((folder / "config.json").read_text()) for folder in (theirs, ours)]
    assert configs[1]["quantization_config"] == configs[0]["quantization_config"]
    assert configs[1]["dtype"] == configs[0]["dtype"]


@pytest.mark.parametrize("recipe", BNB.values(), ids=BNB)
def test_it_loads_and_says_nearly_what_its_parent_does(tmp_path: Path, recipe: Bnb) -> None:
    parent = create_tiny_checkpoint(tmp_path / "parent")
    made = export(parent, tmp_path / "export", recipe=recipe).directory
    assert 0 < distance(logits_of(parent), logits_of(made)) < 0.05


def test_embeddings_and_head_are_the_parents(parent: Path, tmp_path: Path) -> None:
    made = open_checkpoint(export(parent, tmp_path / "export", recipe=BNB["release"]).directory)
    assert made.quantization == "bitsandbytes"
    rows = [name for name in made.tensors if INPUT_ROWS.search(name) or OUTPUT_ROWS.search(name)]
    assert rows
    assert {made.tensors[name].dtype for name in rows} <= {"BF16", "F16"}
    assert len(rows) == (1 if made.is_tied else 2)
