"""The card says what the Hub and a reader must know, and nothing that was not measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.provenance import Origin
from quant.card import Facts, base_model_of, compose
from quant.fidelity import Fidelity
from quant.gate import GATE, judge
from quant.license import License
from tests.support.checkpoints import create_tiny_checkpoint, render_saved
from tests.support.releases import good_fidelity, pack_zeros, say_packing

ORIGIN = Origin(
    recipe="gptq-release",
    stage="quantization",
    seed=7,
    data={"texts": "c" * 64},
    libraries={"gptqmodel": "7.6.0"},
)
PAGE = "# An export against its parent\n\ngptq, bits 4.\n\n## Size and speed\n\nSmall.\n"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_tiny_checkpoint(tmp_path_factory.mktemp("cards") / "parent")


def export_of(parent: Path, out: Path, **said: object) -> Checkpoint:
    with create_checkpoint(out, ORIGIN, renderer=render_saved) as partial:
        pack_zeros(parent, partial)
        say_packing(partial, **said)
    return open_checkpoint(out)


def facts_of(export: Checkpoint, **changes: Any) -> Facts:
    fidelity = changes.pop("fidelity", good_fidelity(exported=export.path))
    defaults: dict[str, Any] = {
        "name": "someone/tiny-gptq",
        "export": export,
        "base_model": "someone/tiny",
        "metadata": {},
        "license": License(identifier="apache-2.0", told="`apache-2.0`, as it happens."),
        "fidelity": fidelity,
        "page": PAGE,
        "gate": GATE,
        "rows": judge(fidelity, GATE, is_chat=True),
        "signed_with": "key",
    }
    return Facts(**(defaults | changes))


def front(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_metadata_are_the_hubs(parent: Path, tmp_path: Path) -> None:
    assert front(compose(facts_of(export_of(parent, tmp_path / "export")))) == {
        "base_model": "someone/tiny",
        "base_model_relation": "quantized",
        "language": ["ko", "en"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["gptq", "4-bit", "malmoi", "vllm"],
    }


def test_language_and_license_are_the_parents(parent: Path, tmp_path: Path) -> None:
    stated = License(identifier="other", told="**Not known**", name="unknown", link="LICENSE")
    facts = facts_of(export_of(parent, tmp_path / "export"), metadata={"language": "ko"}, license=stated)
    found = front(compose(facts))
    assert found["language"] == ["ko"]
    assert (found["license"], found["license_name"], found["license_link"]) == ("other", "unknown", "LICENSE")
    assert "## License\n\n**Not known**" in compose(facts)
    norwegian = replace(facts, metadata={"language": ["ko", False]})
    assert front(compose(norwegian))["language"] == ["ko", "no"], "YAML takes no for False"


def test_everything_a_reader_must_know(parent: Path, tmp_path: Path) -> None:
    card = compose(facts_of(export_of(parent, tmp_path / "export")))
    assert "4 bits with GPTQ (group size 64, sym=true, desc_act=false)" in card
    assert "gptq, bits 4.\n\n### Size and speed\n\nSmall.\n" in card, "the check's page, one level down"
    assert "An export against its parent" not in card
    assert "| korean KL mean, nats | 0.01 | at most 0.072 |" in card
    assert "| Korean | 0.250 | 4.00 |" in card, "30,000 tokens of 120,000 bytes"
    assert "malmoi-serve someone/tiny-gptq --verify-key release.pub" in card
    assert "| korean tokens predicted | 30,000 | at least 10,000 |" in card
    assert "| seed | 7; 3 for the measurements |" in card
    assert f"| calibration, texts | `{'c' * 64}` |" in card
    assert "torch 2.13.0, gptqmodel 7.6.0" in card
    assert "Not measured" not in card


def test_what_was_not_measured_is_said(parent: Path, tmp_path: Path) -> None:
    export = export_of(parent, tmp_path / "export")
    fidelity = replace(good_fidelity(exported=export.path), kobest=None, speed=None)
    card = compose(facts_of(export, fidelity=fidelity, signed_with=None))
    assert "Not measured: KoBEST, speed." in card
    assert "has not been served" in card
    assert "Nobody signed" in card
    assert "--verify-key" not in card


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"sym": False}, "**vLLM 0.32 does not serve it**: it refuses sym=false."),
        ({"desc_act": True}, "it refuses desc_act=true with group_size=64."),
    ],
)
def test_what_vllm_does_not_serve(parent: Path, tmp_path: Path, said: dict[str, object], told: str) -> None:
    card = compose(facts_of(export_of(parent, tmp_path / "export", **said)))
    assert told in card
    assert "malmoi-serve" not in card
    assert front(card)["tags"] == ["gptq", "4-bit", "malmoi"]


def test_what_vllm_serves_on_a_gpu_alone(parent: Path, tmp_path: Path) -> None:
    with create_checkpoint(tmp_path / "export", ORIGIN, renderer=render_saved) as partial:
        pack_zeros(parent, partial, bits=8)
    card = compose(facts_of(open_checkpoint(tmp_path / "export")))
    assert "on a GPU, **not on a CPU**, where it refuses bits=8." in card
    assert front(card)["tags"] == ["gptq", "8-bit", "malmoi", "vllm"]


def test_bitsandbytes_is_told_in_its_own_terms(parent: Path, tmp_path: Path) -> None:
    settings = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_use_double_quant": False,
    }
    export = export_of(parent, tmp_path / "export")
    found: Fidelity = replace(good_fidelity(), method="bitsandbytes", settings=settings)
    card = compose(facts_of(export, fidelity=found))
    assert "4 bits with bitsandbytes (nf4, computing in bfloat16, without double quantization)" in card
    assert "with `vllm-bnb-plugin` beside it" in card


def test_the_parents_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--yanolja--EEVE-Korean-10.8B-v1.0/snapshots/0123abcd"
    assert base_model_of(snapshot) == "yanolja/EEVE-Korean-10.8B-v1.0"
    assert base_model_of(tmp_path / "eeve") == "eeve"
