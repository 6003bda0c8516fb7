"""`malmoi-train corpus`, behind its options."""

from pathlib import Path

from malmoi.files import refuse_existing
from train.corpus.preparation import Preparation, Prepared
from train.corpus.preparing import prepare


def run(
    preparation: Preparation, out: Path, work: Path, *, overwrite: bool, num_workers: int | None = None
) -> Prepared:
    """Prepares the corpus into `out`; refuses an `out` that exists before anything is read."""
    refuse_existing(out, overwrite)
    return prepare(preparation, out, work, overwrite=overwrite, num_workers=num_workers)


def summary(prepared: Prepared) -> str:
    """What a run came to, on a line: documents, and tokens by source."""
    num_documents = int((prepared.order >= 0).sum())
    tokens = ", ".join(f"{source} {prepared.num_tokens(source):,}" for source in prepared.sources)
    return f"{num_documents:,} documents" + (f"; tokens: {tokens}" if prepared.preparation.tokenizer else "")
