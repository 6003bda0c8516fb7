"""python -m benchmarks.quantization: exports, compares, and writes RESULTS.md and results.json."""

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tyro

from benchmarks.machine import Machine, this_machine
from benchmarks.quantization import report, texts
from benchmarks.quantization.runs import run
from benchmarks.results import emptied, this_command, write_json
from malmoi.checkpoint_files import read_json
from malmoi.errors import reported_in_one_line

WORK = Path("build/benchmarks/quantization")
CONTENDERS = ("ours", "gptqmodel")
PACKAGES = ("malmoi", "torch", "transformers", "gptqmodel")


def measure(*, checkpoint: Path, korean: Path, english: Path, repeats: int = 3, out: Path = WORK) -> None:
    """Quantize a checkpoint in both ways, and compare the exports with it.

    Stopped, the same command of the same commit goes on.

    Args:
        checkpoint: trained on Korean and English, best with a grown vocabulary.
        korean: directory of .jsonl.gz files with a field "text".
        english: the same of English.
        repeats: exports of each, one after another in turn; the last ones are compared.
        out: directory for the results and all that is made on the way.
    """
    from malmoi.checkpoint import open_checkpoint
    from quant import gptq
    from quant.layers import linear_layers
    from quant.recipe import find_gptq

    command, machine = this_command("benchmarks.quantization"), this_machine(*PACKAGES)
    earlier = read_json(out / "results.json") if (out / "results.json").exists() else {}
    results: dict[str, Any] = {"command": command, "machine": asdict(machine), "runs": [], "fidelity": {}}
    if _goes_on(earlier, command, machine):
        results |= {name: earlier[name] for name in ("machine", "runs", "fidelity")}
    else:
        emptied(out)
    parent = open_checkpoint(checkpoint)
    group_size = gptq.fit(find_gptq("release"), linear_layers(parent)).group_size
    files = texts.split({"korean": korean, "english": english}, out.absolute() / "texts")
    calibration = [str(files[f"calibration_{language}"]) for language in ("korean", "english")]
    arguments = {
        "ours": [str(checkpoint.absolute()), *calibration],
        "gptqmodel": [str(checkpoint.absolute()), str(group_size), calibration[1]],
    }
    results["parameters"] = sum(math.prod(tensor.shape) for tensor in parent.tensors.values())
    results["group_size"] = group_size
    every = [(repeat, name) for repeat in range(repeats) for name in CONTENDERS]
    for repeat, name in every[len(results["runs"]) :]:
        print(f"repeat {repeat + 1}, {name}", file=sys.stderr, flush=True)
        found = run(name, arguments[name], emptied(out.absolute() / name) / "export")
        results["runs"].append(asdict(found))
        write_json(out, results)
    for name in CONTENDERS:
        if name not in results["fidelity"]:
            results["fidelity"][name] = _fidelity(checkpoint, out / name / "export", files)
            write_json(out, results)
    (out / "RESULTS.md").write_text(report.render(results))
    print(out / "RESULTS.md")


def _goes_on(earlier: dict[str, Any], command: str, machine: Machine) -> bool:
    """Whether what an earlier run left is a part of this one: other code would export in another way."""
    return bool(
        earlier
        and earlier["command"] == command
        and earlier["machine"]["commit"] == machine.commit
        and len(earlier["fidelity"]) < len(CONTENDERS)
    )


def _fidelity(checkpoint: Path, export: Path, files: dict[str, Path]) -> dict[str, Any]:
    from quant import check

    found = check.run(
        export,
        parent=checkpoint,
        korean=[str(files["held_out_korean"])],
        english=[str(files["held_out_english"])],
        out=export.with_name("fidelity"),
        overwrite=True,
    )
    return found.to_record()


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.quantization")
