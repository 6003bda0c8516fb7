"""malmoi-quant: export, check and release quantized checkpoints."""

import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro
from tyro.extras import SubcommandApp

from malmoi.errors import reported_in_one_line
from malmoi.help_text import unfolded
from quant.quiet import set_up_logging

app = SubcommandApp()
T = TypeVar("T")
Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""An option whose text says what holds without it."""
Inputs = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="", metavar="STR...")]
CONFIG = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)


@app.command
@unfolded
def export(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    out: Path,
    method: Literal["gptq", "bnb"] = "gptq",
    recipe: str = "release",
    korean: Inputs = (),
    english: Inputs = (),
    bits: Maybe[Literal[2, 3, 4, 8]] = None,
    group_size: Maybe[Literal[32, 64, 128, -1]] = None,
    resumable: bool = False,
    work: Maybe[Path] = None,
    seed: Maybe[int] = None,
    overwrite: bool = False,
) -> None:
    """Quantize a checkpoint's linear layers; embeddings and head stay as they are.

    Args:
        checkpoint: Directory to export; it is only read.
        out: Directory to write the export to.
        method: GPTQ, which is calibrated, or bitsandbytes' 4 bits.
        recipe: release; for bnb also erkhov-compat; or my.module:RECIPE.
        korean: Text and dialogues to calibrate GPTQ on: files (text, JSONL, Parquet; also .gz, .zst),
            directories, globs in quotes.
        english: The same in English.
        bits: Of a GPTQ weight. Default: the recipe's; vLLM serves 4.
        group_size: GPTQ's inputs that share a scale; -1: all. Default: the recipe's, which is the first of 128,
            64 and 32 that divides every layer's width.
        resumable: Keep GPTQ's state after every layer: killed, the same command goes on. Llama's architecture
            only; takes more time and memory.
        work: Directory for what GPTQ has not finished. Default: OUT.work.
        seed: For the draw of text. Default: 0.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from quant import recipe as recipes
    from quant.calibration import CalibrationSource
    from quant.export import export

    checkpoint, out = checkpoint.absolute(), out.absolute()  # "." has no name of its own
    if method == "bnb":
        recipes.refuse_options(
            "--method bnb",
            bits=bits,
            group_size=group_size,
            korean=korean,
            english=english,
            resumable=resumable or None,
            work=work,
            seed=seed,
        )
        print(export(checkpoint, out, recipe=recipes.find_bnb(recipe), overwrite=overwrite))
        return
    chosen = recipes.changed(recipes.find_gptq(recipe), bits=bits, group_size=group_size)
    source = CalibrationSource(korean=korean, english=english)
    print(
        export(
            checkpoint,
            out,
            recipe=chosen,
            calibration=source,
            seed=seed or 0,
            work=work,
            resumable=resumable,
            overwrite=overwrite,
        )
    )


@app.command
@unfolded
def check(
    export: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORT")],
    parent: Path,
    korean: Annotated[tuple[str, ...], tyro.conf.arg(metavar="STR...")],
    english: Inputs = (),
    prompts: Inputs = (),
    kobest: Maybe[Path] = None,
    out: Maybe[Path] = None,
    serve: bool = False,
    num_tokens: Maybe[int] = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Measure how far an export is from the checkpoint it was made from.

    Args:
        export: Directory that malmoi-quant export wrote.
        parent: Checkpoint that it was made from.
        korean: Held-out texts: files (text, JSONL, Parquet; also .gz, .zst), directories, globs in quotes.
        english: The same in English.
        prompts: Held-out questions or dialogues, to see whether answers end.
        kobest: Directory of KoBEST's files.
        out: Directory to write fidelity.json, .md and .png to. Default: EXPORT.fidelity.
        serve: Measure speed, too: malmoi-serve is started with each of the two.
        num_tokens: To predict in each language, at most. Default: 131072.
        seed: For the draw of texts.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from quant import check
    from quant.fidelity import PAGE_FILE

    export, parent = export.absolute(), parent.absolute()
    out = export.with_name(f"{export.name}.fidelity") if out is None else out.absolute()
    check.run(
        export,
        parent=parent,
        korean=korean,
        english=english,
        prompts=prompts,
        kobest=kobest,
        out=out,
        serve=serve,
        num_tokens=check.NUM_TOKENS if num_tokens is None else num_tokens,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"{out}: see {out / PAGE_FILE}")


@app.command
@unfolded
def release(
    export: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORT")],
    parent: Path,
    out: Path,
    fidelity: Maybe[Path] = None,
    gate: Maybe[str] = None,
    sign_key: Maybe[Path] = None,
    base_model: Maybe[str] = None,
    push: Maybe[str] = None,
    dry_run: bool = False,
    overwrite: bool = False,
) -> None:
    """Release an export that passes the gate: with model card, checksums, signature.

    Args:
        export: Directory that malmoi-quant export wrote.
        parent: Checkpoint that it was made from.
        out: Directory to write the release to.
        fidelity: Directory that malmoi-quant check wrote. Default: EXPORT.fidelity.
        gate: Thresholds from elsewhere: my.module:GATE.
        sign_key: PEM file with the private key to sign with.
        base_model: The parent's id on the Hub, where it did not come from there.
        push: Repository on the Hub to send the release to.
        dry_run: Tell what would be written and sent; keep nothing.
        overwrite: Replace what is in OUT.
    """
    from quant import release
    from quant.gate import GATE, find_gate

    export, parent, out = export.absolute(), parent.absolute(), out.absolute()
    print(
        release.run(
            export,
            parent=parent,
            fidelity=export.with_name(f"{export.name}.fidelity") if fidelity is None else fidelity,
            out=out,
            gate=find_gate(gate) if gate else GATE,
            sign_key=sign_key,
            base_model=base_model,
            push=push,
            dry_run=dry_run,
            overwrite=overwrite,
        )
    )


def _wait_without_spinning() -> None:
    """See malmoi-train's: a thread that waits for another must not spin. Read once, when torch is loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Runs the command that the arguments name."""
    set_up_logging()
    with reported_in_one_line():
        app.cli(prog="malmoi-quant", description=__doc__, config=CONFIG)


if __name__ == "__main__":
    main()
