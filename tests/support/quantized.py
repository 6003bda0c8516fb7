"""Quantized copies of a small checkpoint, as malmoi-quant makes them."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from malmoi.provenance import PROVENANCE_FILE


def export_bnb(checkpoint: Path, out: Path, recipe: str = "release") -> Path:
    """bitsandbytes' 4 bits; into `out` only its files, where that is there already."""
    from quant.export import export
    from quant.recipe import BNB

    if not out.exists():
        return export(checkpoint, out, recipe=BNB[recipe]).directory
    with TemporaryDirectory() as folder:
        made = export(checkpoint, Path(folder, "made"), recipe=BNB[recipe]).directory
        for file in made.iterdir():
            if file.name != PROVENANCE_FILE:
                shutil.copyfile(file, out / file.name)
    return out


def export_gptq(checkpoint: Path, out: Path) -> Path:
    """GPTQ as vLLM serves it: 4 bits, symmetric, no activation order; of the demo, on what it learnt."""
    from quant.calibration import CalibrationSource
    from quant.export import export
    from quant.recipe import GPTQ

    learnt = checkpoint.with_name(f"{checkpoint.name}.work") / "conversations.jsonl"
    source = CalibrationSource(korean=(str(learnt),))
    return export(checkpoint, out, recipe=GPTQ["release"], calibration=source).directory
