"""`malmoi-train corpus`, behind its options."""

from pathlib import Path

from malmoi.files import refuse_existing
from train.corpus.preparation import Preparation, Prepared
from train.corpus.preparing import prepare
from train.corpus.running import full_disk_told


def run(
    preparation: Preparation, out: Path, work: Path, *, overwrite: bool, num_workers: int | None = None
) -> Prepared:
    """Prepares the corpus into `out`; refuses an `out` that exists before anything is read.

    Raises: what `prepare` raises, and OutputError for a full disk.
    """
    inputs = (*preparation.corpus, *preparation.english, *preparation.parallel)
    refuse_existing(out, overwrite, inputs=inputs)
    with full_disk_told(work):
        return prepare(preparation, out, work, overwrite=overwrite, num_workers=num_workers)


def summary(prepared: Prepared) -> str:
    """What a run came to, on a line: documents, tokens by source, and what of its recipe is assumed."""
    num_documents = int((prepared.order >= 0).sum())
    tokens = ", ".join(f"{source} {prepared.num_tokens(source):,}" for source in prepared.sources)
    assumed = ", ".join(prepared.preparation.assumptions())
    return (
        f"{num_documents:,} documents"
        + (f"; tokens: {tokens}" if prepared.preparation.tokenizer else "")
        + (f"; no source states {assumed}" if assumed else "")
    )
