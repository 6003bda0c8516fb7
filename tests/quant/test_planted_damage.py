"""A layer of zeros is caught by what the models say, where nothing else tells of it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from malmoi.checkpoint import create_checkpoint, open_checkpoint
from malmoi.errors import ReleaseError
from malmoi.windows import window_width
from quant import release
from quant.fidelity import Fidelity
from quant.gate import GATE
from quant.loading import load_model, load_tokenizer
from quant.losses import summary, token_losses
from quant.passages import sample
from quant.token_kinds import token_kinds
from tests.support.checkpoints import render_saved
from tests.support.releases import create_bnb_export, good_fidelity, write_report
from train.demo.conversations import conversations

NUM_TOKENS = 2048
OWN = replace(
    GATE,
    max_perplexity_ratio=1.5,
    max_new_token_ratio=2.0,
    max_kl_mean=0.25,
    max_kl_p99=2.5,
    min_top1_agreement=0.85,
    min_tokens=NUM_TOKENS,
    required=("korean", "answers"),
)
"""A model of 2 MB loses in nf4 what a gate for real ones does not allow."""
TWO_ZEROS = 0x77
"""A byte of nf4: the code of 0, twice."""
Measure = Callable[[Path], Fidelity]


@pytest.fixture(scope="module")
def measure(demo_checkpoint: Path) -> Measure:
    """Real losses of an export of the demo, on conversations; the rest as of a good one."""
    parent, checkpoint = load_model(demo_checkpoint), open_checkpoint(demo_checkpoint)
    tokenizer = load_tokenizer(demo_checkpoint)
    passages = sample(conversations(64, seed=99), tokenizer, num_tokens=NUM_TOKENS)
    num_bytes = sum(passage.num_bytes for passage in passages)

    def apply(export: Path) -> Fidelity:
        losses = token_losses(parent, load_model(export), passages, width=window_width(checkpoint))
        text = summary(losses, token_kinds(checkpoint), num_bytes)
        return replace(good_fidelity(demo_checkpoint, export), text={"korean": text, "english": None})

    return apply


@pytest.fixture(scope="module")
def export(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_bnb_export(demo_checkpoint, tmp_path_factory.mktemp("planted") / "nf4")


def with_zeros(export: Path, out: Path, layer: str) -> Path:
    """The export with a layer of zeros, and a malmoi.json that says so."""
    made = open_checkpoint(export).provenance
    assert made is not None
    with create_checkpoint(out, made.origin, renderer=render_saved) as partial:
        for name in made.files:
            shutil.copyfile(export / name, partial / name)
        tensors = load_file(partial / "model.safetensors")
        tensors[f"{layer}.weight"] = torch.full_like(tensors[f"{layer}.weight"], TWO_ZEROS)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    return out


def test_the_export_as_it_is_goes_out(
    demo_checkpoint: Path, export: Path, measure: Measure, tmp_path: Path
) -> None:
    report = write_report(tmp_path / "report", measure(export))
    out = tmp_path / "out"
    release.run(export, parent=demo_checkpoint, fidelity=report, out=out, gate=OWN)
    assert open_checkpoint(out).quantization == "bitsandbytes"


@pytest.mark.parametrize(
    "layer", ["0.self_attn.v_proj", "1.self_attn.o_proj", "1.mlp.down_proj", "2.mlp.up_proj"]
)
def test_a_layer_of_zeros_does_not(
    demo_checkpoint: Path, export: Path, measure: Measure, tmp_path: Path, layer: str
) -> None:
    damaged = with_zeros(export, tmp_path / "damaged", f"model.layers.{layer}")
    report = write_report(tmp_path / "report", measure(damaged))
    with pytest.raises(ReleaseError, match=r"korean KL mean, nats: .*korean top-1 agreement, share: "):
        release.run(damaged, parent=demo_checkpoint, fidelity=report, out=tmp_path / "out", gate=OWN)
    assert not (tmp_path / "out").exists()
