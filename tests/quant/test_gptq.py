"""GPTQ exports: against the textbook, against what the layers compute with, and around the library's faults."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from safetensors.torch import load_file

from malmoi.checkpoint import open_checkpoint
from malmoi.checkpoint_files import INPUT_ROWS, OUTPUT_ROWS
from malmoi.errors import ExportError
from quant.calibration import CalibrationSource, calibration_set
from quant.export import Export, export
from quant.gptq import check_resumable, fit
from quant.layers import Width, linear_layers
from quant.packing import check_packing
from quant.recipe import GPTQ, Calibration, Gptq
from tests.support.checkpoints import KOREAN, create_tiny_checkpoint
from tests.support.exports import create_grown_chat
from tests.support.running_text import distance, logits_of

GROUP: Final = 128
"""The library's block, too: in one it takes the scales of smaller groups from weights not yet made up for."""
SIZES = Calibration(num_tokens=2048, row_tokens=64, min_occurrences=2)
TEXTBOOK = Gptq(
    name="textbook",
    source="arXiv:2210.17323",
    group_size=GROUP,
    act_group_aware=False,
    damp=0.05,  # float32 and float64 then invert a Hessian of so few tokens alike
    calibration=SIZES,
)
SEED = 3
FIRST = "model.layers.0.self_attn.q_proj"
"""A layer whose input no quantized layer has touched."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CalibrationSource:
    file = tmp_path_factory.mktemp("texts") / "ko.txt"
    lines = [" ".join(KOREAN[at:] + KOREAN[:at]) for at in range(len(KOREAN))] * 8
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CalibrationSource(korean=(str(file),))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_grown_chat(tmp_path_factory.mktemp("gptq") / "grown", hidden_size=256, initializer_range=0.05)


@pytest.fixture(scope="module")
def made(parent: Path, source: CalibrationSource) -> Export:
    """The export that most tests look at."""
    relative = [Path(os.path.relpath(path)) for path in (parent, parent.with_name("export"))]
    return export(*relative, recipe=TEXTBOOK, calibration=source, seed=SEED)


def _codes(qweight: torch.Tensor) -> torch.Tensor:
    """(inputs, outputs), unpacked by hand: eight numbers of 4 bits in an integer, the lowest first."""
    words = qweight.long() & 0xFFFFFFFF
    return torch.stack([words >> shift & 15 for shift in range(0, 32, 4)], dim=1).reshape(-1, qweight.shape[1])


def _dequantized(tensors: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
    """(outputs, inputs), from the format's definition: scale x (code - zero), zeros stored less one."""
    codes, scales = _codes(tensors[f"{layer}.qweight"]), tensors[f"{layer}.scales"].bfloat16().float()
    zeros = _codes(tensors[f"{layer}.qzeros"].T.contiguous()).T + 1
    groups = tensors[f"{layer}.g_idx"].long()
    return (scales[groups] * (codes - zeros[groups])).T


def _inputs_of(parent: Path, layer: str, rows: object) -> torch.Tensor:
    """What goes into a layer of the parent, (tokens, inputs), as transformers computes it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.bfloat16, device_map="cpu")
    found: list[torch.Tensor] = []
    module = model.get_submodule(layer)
    module.register_forward_pre_hook(lambda _module, given: found.append(given[0][0].double()))
    with torch.inference_mode():
        for row in rows:  # type: ignore[attr-defined]
            model(torch.tensor([list(row)]))
    return torch.cat(found)


def _textbook(weight: torch.Tensor, inputs: torch.Tensor, damp: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (outputs, inputs) and scales (outputs, groups): optimal brain surgeon, column by column in float64.

    The inverse Hessian is reduced by Gaussian elimination, where GPTQ takes its Cholesky factor.
    """
    weight, hessian = weight.double().clone(), 2 * inputs.T @ inputs / len(inputs)
    hessian += damp * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    inverse = torch.linalg.inv(hessian)
    codes, scales = torch.zeros_like(weight, dtype=torch.long), []
    for column in range(weight.shape[1]):
        if column % GROUP == 0:
            largest = weight[:, column : column + GROUP].abs().amax(dim=1)
            scales.append(2 * largest / 15)
        code = (weight[:, column] / scales[-1]).round().clamp(-8, 7)
        codes[:, column] = code.long() + 8
        error = (weight[:, column] - code * scales[-1]) / inverse[column, column]
        weight[:, column:] -= error[:, None] * inverse[column, column:]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column].clone()
    return codes, torch.stack(scales, dim=1)


def test_a_layer_is_quantized_as_in_the_textbook(parent: Path, made: Export, source: CalibrationSource) -> None:
    rows = calibration_set(open_checkpoint(parent), source, SIZES, SEED).rows
    weight = load_file(parent / "model.safetensors")[f"{FIRST}.weight"]
    codes, scales = _textbook(weight, _inputs_of(parent, FIRST, rows), TEXTBOOK.damp)
    found = load_file(made.directory / "model.safetensors")
    torch.testing.assert_close(found[f"{FIRST}.scales"].T.double(), scales, rtol=2e-3, atol=0)
    difference = (_codes(found[f"{FIRST}.qweight"]).T - codes).abs()
    assert (difference == 0).double().mean() > 0.99  # float32 there, float64 here: halves fall either way
    assert difference.max() <= 1
    rounded = (weight.double() / scales.repeat_interleave(GROUP, dim=1)).round().clamp(-8, 7).long() + 8
    assert (codes == rounded).double().mean() < 0.9, "rounding alone gives the same: nothing was tested"


def test_the_files_hold_what_the_layers_compute_with(made: Export) -> None:
    """Each layer, loaded as users load it, is fed the unit matrix: what comes out is its weights.

    Computing in bfloat16 it holds the scales in bfloat16, too.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made.directory, dtype=torch.bfloat16, device_map="cpu")
    tensors = load_file(made.directory / "model.safetensors")
    layers = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    assert len(layers) == 14
    for layer in layers:
        module, expected = model.get_submodule(layer), _dequantized(tensors, layer)
        with torch.inference_mode():
            found = module(torch.eye(expected.shape[1], dtype=torch.bfloat16)).T
        assert torch.equal(found, expected.bfloat16()), layer


def test_it_says_nearly_what_its_parent_does(parent: Path, made: Export) -> None:
    assert 0 < distance(logits_of(parent), logits_of(made.directory)) < 0.05


def test_embeddings_head_and_norms_are_the_parents_bit_for_bit(parent: Path, made: Export) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (parent, made.directory))
    left = {name for name in before if f"{name.removesuffix('.weight')}.qweight" not in after}
    assert {name for name in left if INPUT_ROWS.search(name) or OUTPUT_ROWS.search(name)} == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert all(torch.equal(before[name], after[name]) for name in left)
    provenance = open_checkpoint(made.directory).provenance
    assert provenance is not None
    assert provenance.ledger is not None
    assert provenance.ledger.entries[-1].changed == ("body",)


def test_its_settings_carry_no_text_and_no_path(parent: Path, made: Export) -> None:
    """On transformers' path config.json holds all that was calibrated on, on GPTQModel's own a path."""
    config = (made.directory / "config.json").read_text(encoding="utf-8")
    second = json.loads((made.directory / "quantize_config.json").read_text())
    settings = json.loads(config)["quantization_config"]
    assert settings == second
    assert (settings["bits"], settings["group_size"], settings["desc_act"]) == (4, GROUP, False)
    for file in made.directory.glob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert str(parent.parent) not in text, file
        if file.name != "tokenizer.json":
            assert all(sentence[:12] not in text for sentence in KOREAN[4:]), file
    check_packing(open_checkpoint(made.directory), open_checkpoint(parent))


def test_provenance_tells_of_text_coverage_and_server(parent: Path, made: Export) -> None:
    provenance = open_checkpoint(made.directory).provenance
    assert provenance is not None
    origin = provenance.origin
    assert (origin.recipe, origin.stage, origin.seed) == ("gptq-textbook", "export", SEED)
    assert origin.data.keys() == {"korean/ko.txt", "rows"}
    assert origin.metrics["calibration_new_tokens"] == 32
    assert origin.metrics["served_by_vllm_on_cpu"] == origin.metrics["served_by_vllm_on_gpu"] == 1


def test_nothing_is_left_beside_it(parent: Path, made: Export) -> None:
    assert {path.name for path in parent.parent.iterdir()} == {"grown", "export"}
    assert made.num_bytes < made.parent_bytes
    assert made.peak.num_bytes > 0
    assert Path.cwd() == Path(__file__).parents[2]


def test_gpt_neox_is_saved_as_its_parent_names_things(tmp_path: Path, source: CalibrationSource) -> None:
    """GPTQModel's own save finds no head in it."""
    parent = create_tiny_checkpoint(tmp_path / "neox", architecture="gpt_neox")
    made = export(
        parent, tmp_path / "export", recipe=replace(TEXTBOOK, act_group_aware=True), calibration=source
    )
    tensors = open_checkpoint(made.directory).tensors
    assert {"embed_out.weight", "gpt_neox.layers.1.mlp.dense_h_to_4h.qweight"} <= tensors.keys()
    assert distance(logits_of(parent), logits_of(made.directory)) < 0.05


@pytest.mark.parametrize(("inputs", "group"), [(256, 128), (192, 64), (160, 32)])
def test_the_group_is_the_largest_that_divides_every_width(inputs: int, group: int) -> None:
    widths = {"model.layers.0.a": Width(256, 64), "model.layers.0.b": Width(inputs, 64)}
    assert fit(GPTQ["release"], widths).group_size == group


@pytest.mark.parametrize(
    ("group", "width", "found"),
    [
        (None, Width(200, 64), "model.layers.0.b: expected an input width in multiples of 32.* found 200"),
        (None, Width(64, 48), "model.layers.0.b: expected an output width in multiples of 32.* found 48"),
        (128, Width(192, 64), "model.layers.0.b: expected an input width in multiples of 128.* found 192"),
        (-1, Width(100, 64), "model.layers.0.b: expected an input width in multiples of 32.* found 100"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(group: int | None, width: Width, found: str) -> None:
    recipe = replace(GPTQ["release"], group_size=group, act_group_aware=group != -1)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match=found):
        fit(recipe, {"model.layers.0.a": Width(256, 64), "model.layers.0.b": width})


def test_layers_are_all_linear_ones_but_the_head(parent: Path) -> None:
    layers = linear_layers(open_checkpoint(parent))
    assert len(layers) == 14
    assert layers["model.layers.1.mlp.down_proj"] == Width(512, 256)


def test_state_is_kept_only_where_the_library_can(parent: Path, tmp_path: Path) -> None:
    check_resumable(open_checkpoint(parent))
    neox = create_tiny_checkpoint(tmp_path / "neox", architecture="gpt_neox")
    with pytest.raises(ExportError, match=r"config.json: expected .*llama.*found gpt_neox"):
        check_resumable(open_checkpoint(neox))


LIBRARY = """
import os, sys
from gptqmodel import GPTQModel, QuantizeConfig
config = QuantizeConfig(bits=4, group_size=128, device="cpu", offload_to_disk_path=sys.argv[2])
model = GPTQModel.load(sys.argv[1], config)
model.quantize([list(range(300, 364))] * 16, batch_size=4)
model.save(sys.argv[3])
os._exit(0)
"""


def _alone(parent: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """GPTQModel called as its README has it."""
    folder.mkdir()
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        LIBRARY,
        str(parent),
        str(folder / "off"),
        str(folder / "out"),
    ]
    kept = {name: value for name, value in os.environ.items() if name != "GPTQMODEL_CPU_WORKERS"}
    return subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_faults_that_are_stepped_around_are_still_there(parent: Path, tmp_path: Path) -> None:
    """Where this fails one is mended, and our step can go."""
    neox = create_tiny_checkpoint(tmp_path / "neox", architecture="gpt_neox")
    done = _alone(neox, tmp_path / "head", GPTQMODEL_CPU_WORKERS="2")
    assert "Offloaded tensor 'lm_head.weight' not found" in done.stderr
    done = _alone(parent, tmp_path / "path", GPTQMODEL_CPU_WORKERS="2")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in (tmp_path / "path/out/config.json").read_text()
    one_worker = _alone(parent, tmp_path / "pool", GPTQMODEL_CPU_WORKERS="1")  # its own choice on two cores
    assert "requests 2 workers" in one_worker.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        replace(TEXTBOOK, bits=2, act_group_aware=True),
        replace(TEXTBOOK, bits=3),
        replace(TEXTBOOK, bits=8, group_size=32),
        replace(TEXTBOOK, sym=False, group_size=64),
        replace(TEXTBOOK, desc_act=True),
        replace(TEXTBOOK, bits=8, group_size=-1),
    ],
    ids=["2 bits", "3 bits", "8 bits", "not symmetric", "desc_act", "one group"],
)
def test_every_kind_loads_in_transformers(
    parent: Path, source: CalibrationSource, tmp_path: Path, recipe: Gptq
) -> None:
    made = export(parent, tmp_path / "export", recipe=recipe, calibration=source)
    check_packing(open_checkpoint(made.directory), open_checkpoint(parent))
    limit = {2: 1.5, 3: 0.3}.get(recipe.bits, 0.05)
    assert distance(logits_of(parent), logits_of(made.directory)) < limit


@pytest.mark.slow
def test_a_tied_model_stays_tied(source: CalibrationSource, tmp_path: Path) -> None:
    parent = create_tiny_checkpoint(tmp_path / "tied", tied=True, dtype="float32")
    made = open_checkpoint(export(parent, tmp_path / "export", recipe=TEXTBOOK, calibration=source).directory)
    assert made.is_tied
    assert made.config["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in made.tensors.values()} == {"BF16", "F16", "I32"}
