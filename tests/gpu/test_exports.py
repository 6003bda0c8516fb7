"""Exports made on a GPU: of the kind that vLLM serves, and near their parent."""

import json
from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from quant import check
from tests.support.exports import write_jsonl
from tests.support.quantized import export_bnb, export_gptq
from train.demo.conversations import sentences

pytestmark = pytest.mark.gpu("exports")

EXPORTS = {"gptq": export_gptq, "bitsandbytes": export_bnb}
SETTINGS: dict[str, dict[str, object]] = {
    "gptq": {"bits": 4, "sym": True, "desc_act": False},
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}
LEAST_AGREEMENT = 0.9
"""Of the likeliest next tokens, export and parent side by side."""


@pytest.fixture(scope="module", params=EXPORTS)
def export(
    request: pytest.FixtureRequest, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return EXPORTS[request.param](demo_checkpoint, tmp_path_factory.mktemp("exports") / request.param)


def test_it_opens_as_what_it_is(export: Path) -> None:
    assert open_checkpoint(export).quantization == export.name
    found = json.loads((export / "config.json").read_text())["quantization_config"]
    assert SETTINGS[export.name].items() <= found.items()


def test_it_is_near_its_parent(export: Path, demo_checkpoint: Path, tmp_path: Path) -> None:
    korean = write_jsonl(tmp_path / "korean.jsonl", [{"text": text} for text in sentences(300, 7)])
    found = check.run(export, parent=demo_checkpoint, korean=[str(korean)], out=tmp_path / "fidelity")
    text = found.text["korean"]
    assert text is not None
    assert text.top1_agreement > LEAST_AGREEMENT
