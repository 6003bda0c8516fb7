"""malmoi-train: a few commands, each of which ends in a checkpoint."""

import logging
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.extras import SubcommandApp

from malmoi.errors import reported_in_one_line

LOUD_AT_IMPORT = ("torchao", "torch.utils._pytree", "bitsandbytes")
"""Libraries that transformers loads when they are there, and that tell of kernels nobody asked for."""

app = SubcommandApp()


@app.command
def demo(out: Path, seed: int = 0, overwrite: bool = False) -> None:
    """Train a small Korean chat model from nothing, in minutes, to see every later step work.

    Args:
        out: Directory to write the checkpoint to.
        seed: The same seed on the same machine gives the same bytes.
        overwrite: Replace what is in the directory.
    """
    _wait_without_spinning()
    from train.demo.course import OVERALL, teach

    metrics = teach(out, seed=seed, overwrite=overwrite)
    print(f"{out}: {metrics[OVERALL]:.1%} of held-out questions answered right")


@app.command
def vocabulary(
    base: Path,
    corpus: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CORPUS...")],
    out: Path,
    recipe: Literal["eeve", "tedllm"] = "eeve",
    size: int | None = None,
    threshold: int | None = None,
    keep: Path | None = None,
    drop: Path | None = None,
    held_out: tuple[str, ...] = (),
    vectors: Path | None = None,
    text_field: str = "text",
    on_bad_line: Literal["refuse", "skip"] = "refuse",
    memory: str = "2GB",
    work: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Grow a base's vocabulary by the words of a Korean corpus: tokens, tokenizer, embeddings, and a report.

    Killed, the same command goes on where it was.

    Args:
        base: Checkpoint directory; or tokenizer.json, SentencePiece model or tekken.json for a tokenizer alone.
        corpus: Files (text, JSONL, Parquet; also .gz, .zst), directories, globs in quotes, or hub:NAME[:SPLIT].
        out: Directory to write the checkpoint to.
        recipe: The published model whose numbers are used.
        size: Tokens to add; with the base's a multiple of 64. Default: the recipe's.
        threshold: Occurrences in the corpus below which a token is dropped. Default: the recipe's rate.
        keep: File of texts, one on each line (tokens.tsv will do), that become tokens however rare.
        drop: File of texts that must not become tokens.
        held_out: Texts to report on, named as the corpus is. Default: the corpus itself.
        vectors: For similar rows: fastText .bin, word2vec .vec, or sentence-transformers directory. Default:
            trained on the corpus.
        text_field: Field that holds the text.
        on_bad_line: Stop at a line without a text, or leave it out and count it.
        memory: Budget for counting words.
        work: Directory of what has been done so far. Default: OUT.work.
        seed: For random rows.
        overwrite: Replace what is in OUT.
    """
    _wait_without_spinning()
    from train.recipes import GROWTHS
    from train.vocabulary import command
    from train.vocabulary.growth import Request

    chosen = GROWTHS[recipe]
    request = Request(
        base=base,
        corpus=corpus,
        recipe=chosen,
        num_new=chosen.num_new if size is None else size,
        threshold=threshold,
        keep=command.read_texts_of(keep),
        drop=command.read_texts_of(drop),
        vectors=vectors,
        text_field=text_field,
        on_bad_line=on_bad_line,
        seed=seed,
    )
    work = out.with_name(f"{out.name}.work") if work is None else work
    memory_bytes = command.bytes_of(memory)
    grown = command.run(request, out, work, memory_bytes=memory_bytes, overwrite=overwrite, held_out=held_out)
    num_new, num_all = len(grown.choice.tokens), grown.tokenizer.num_ids
    print(f"{out}: {num_new} tokens added, {num_all} in all; see {out / 'report.md'}")


def _wait_without_spinning() -> None:
    """A thread that waits for another must not spin: beside any other busy process it takes the core that the
    other needs, and a step took ten times as long. Read once, when torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Runs the command that the arguments name."""
    logging.basicConfig(format="%(name)s: %(message)s")
    for name in LOUD_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    with reported_in_one_line():
        app.cli(prog="malmoi-train", description=__doc__)


if __name__ == "__main__":
    main()
