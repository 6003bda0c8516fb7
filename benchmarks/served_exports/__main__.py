"""python -m benchmarks.served_exports: serves exports, asks them, compares, and writes RESULTS.md."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.machine import this_machine
from benchmarks.results import emptied, this_command, write_json
from benchmarks.served_exports.agreement import DType, Turns, agreement, served_answers
from malmoi.checkpoint import open_checkpoint
from malmoi.errors import reported_in_one_line
from malmoi.markdown import table

WORK = Path("build/benchmarks/served_exports")
PACKAGES = ("malmoi", "torch", "transformers", "gptqmodel", "bitsandbytes")
EXACT = {"VLLM_CPU_INT4_W4A8": "0"}
"""Without it vLLM makes whole numbers of 8 bits of what goes into GPTQ's layers, where the CPU has AMX."""
GAP = 0.02
EXPLANATION = """Each is served by malmoi-serve and asked greedily; transformers, in {dtype} as well, is
given the same prompts and the server's own tokens, and asked at each for its best. Differ: tokens that are
not its best; clearly: those where its best lay more than 0.02 above (logits). Right: answers equal to the
expected ones."""


def measure(
    exports: Annotated[
        list[Path], tyro.conf.Positional, tyro.conf.arg(help="the checkpoint itself first, then its exports")
    ],
    *,
    prompts: Path,
    num: int = 1_000,
    max_tokens: int = 64,
    dtype: DType = "bfloat16",
    out: Path = WORK,
) -> None:
    """Ask every checkpoint the same through vLLM.

    Args:
        prompts: JSON lines of dialogues {"messages"}; their last answers are the expected ones.
        num: of its first dialogues.
        max_tokens: of an answer.
        dtype: that both compute in. bfloat16 has steps of 0.03 between logits of 4 and 8, 0.06 up to 16: closer
            ones are a step apart, or none, in another order of summation. float16 has an eighth of these steps.
        out: directory for the results.
    """
    command, machine = this_command("benchmarks.served_exports"), this_machine(*PACKAGES)
    emptied(out)
    lines = prompts.read_text(encoding="utf-8").splitlines()[:num]
    dialogues = [json.loads(line)["messages"] for line in lines]
    rows = [row for export in exports for row in _rows(export, dialogues, max_tokens, dtype)]
    write_json(out, {"command": command, "machine": asdict(machine), "rows": rows})
    explanation = EXPLANATION.format(dtype=dtype)
    parts = [
        "# Exports under vLLM and under transformers",
        machine.heading(command, is_timed=False),
        f"{len(dialogues)} questions, answers of at most {max_tokens} tokens. {explanation} {_activations()}",
        table(
            ["", "tokens", "differ", "clearly", "greatest gap", "right"],
            [
                [
                    row["name"],
                    f"{row['num_tokens']:,}",
                    f"{len(row['gaps'])}",
                    f"{row['clearly']}",
                    f"{max(row['gaps'], default=0.0):.3f}",
                    f"{row['right']:.1%}",
                ]
                for row in rows
            ],
        ),
    ]
    (out / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(out / "RESULTS.md")


def _rows(export: Path, dialogues: list[Turns], max_tokens: int, dtype: DType) -> Iterator[dict[str, Any]]:
    settings: dict[str, dict[str, str]] = {export.name: {}}
    if open_checkpoint(export).quantization == "gptq":
        settings[f"{export.name}, {' '.join('='.join(pair) for pair in EXACT.items())}"] = EXACT
    prompts = [turns[:-1] for turns in dialogues]
    for name, variables in settings.items():
        print(name, file=sys.stderr, flush=True)
        with _environment(variables):
            answers = served_answers(export, prompts, max_tokens, dtype)
        found = agreement(export, answers, dtype)
        right = [answer.text == turns[-1]["content"] for answer, turns in zip(answers, dialogues, strict=True)]
        yield {
            "name": name,
            "num_tokens": found.num_tokens,
            "gaps": found.gaps,
            "clearly": found.beyond(GAP),
            "right": sum(right) / len(right),
        }


def _activations() -> str:
    if torch.cpu._is_amx_tile_supported():
        return (
            "This CPU has AMX: unless told otherwise, what goes into GPTQ's layers is whole numbers of 8 bits."
        )
    return "This CPU has no AMX, so that vLLM leaves what goes into GPTQ's layers as it is, told so or not."


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


if __name__ == "__main__":
    with reported_in_one_line():
        tyro.cli(measure, prog="python -m benchmarks.served_exports")
