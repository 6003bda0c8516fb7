"""Whether a GPTQ export's settings are those its tensors were packed with: from headers, no weight is read."""

from collections.abc import Mapping
from typing import Any, Final

from malmoi.checkpoint import Checkpoint
from malmoi.checkpoint_files import read_json
from malmoi.errors import ReleaseError

SECOND_CONFIG: Final = "quantize_config.json"
"""Where AutoGPTQ looks for the settings, beside config.json."""
SETTINGS: Final = ("bits", "group_size", "sym", "desc_act")
WORD_BITS: Final = 32


def check_packing(export: Checkpoint, parent: Checkpoint) -> None:
    """Raises ReleaseError where config.json says other than quantize_config.json or the tensors' shapes do."""
    if export.quantization != "gptq":
        return
    settings = export.config["quantization_config"]
    second = export.path / SECOND_CONFIG
    if second.exists():
        found = read_json(second)
        for name in SETTINGS:
            if found.get(name) != settings.get(name):
                raise _wrong(f"{second}: {name}", settings.get(name), found.get(name))
    for name in export.tensors:
        if name.endswith(".qweight"):
            _check_layer(name.removesuffix(".qweight"), export, parent, settings)


def _check_layer(layer: str, export: Checkpoint, parent: Checkpoint, settings: Mapping[str, Any]) -> None:
    weight = parent.tensors.get(f"{layer}.weight")
    if weight is None:
        raise _wrong(f"{export.path}: {layer}", "a layer of the parent", "one that it does not have")
    bits, group_size = settings["bits"], settings["group_size"]
    words, outputs = export.tensors[f"{layer}.qweight"].shape
    inputs = words * WORD_BITS // bits
    groups = 1 if group_size == -1 else -(-inputs // group_size)
    shapes = {"scales": (groups, outputs), "qzeros": (groups, outputs * bits // WORD_BITS)}
    if sorted(weight.shape) != sorted((inputs, outputs)):  # GPT-2 has them the other way round
        expected = f"a weight of shape {list(weight.shape)}, packed with bits={bits} as config.json says"
        raise _wrong(f"{export.path}: {layer}.qweight", expected, [words, outputs])
    for part, shape in shapes.items():
        tensor = export.tensors.get(f"{layer}.{part}")
        if tensor is None or tensor.shape != shape:
            expected = f"{list(shape)}, as bits={bits} and group_size={group_size} in config.json say"
            found = "none" if tensor is None else list(tensor.shape)
            raise _wrong(f"{export.path}: {layer}.{part}", expected, found)


def _wrong(where: str, expected: object, found: object) -> ReleaseError:
    return ReleaseError(where, expected=str(expected), found=str(found), next_step="export the parent again")
