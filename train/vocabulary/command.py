"""`malmoi-train vocabulary`, behind its options: the whole of it, told as it goes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from malmoi.errors import RecipeError
from malmoi.files import refuse_existing
from train.corpus.shards import find_shards
from train.vocabulary.growth import (
    Grown,
    Request,
    RowMaker,
    grow_vocabulary,
    sample_texts,
    write_checkpoint,
    write_tokenizer,
)
from train.vocabulary.report import compare, report_files

log = logging.getLogger(__name__)

NUM_REPORTED_TEXTS = 20_000
NUM_LOSS_TEXTS = 200
LEAST_MEMORY = 2 * 10**9
"""Bytes."""


def run(
    request: Request, out: Path, work: Path, *, memory_bytes: int, overwrite: bool, held_out: Sequence[str]
) -> Grown:
    """Grows the vocabulary of `request.base` into `out`: a checkpoint; for a base without weights, a tokenizer.

    `held_out`: texts to report on, as the corpus is named; none for the corpus itself.
    """
    refuse_existing(out, overwrite, inputs=(request.base, *request.corpus, *held_out))
    work.mkdir(parents=True, exist_ok=True)
    grown = grow_vocabulary(request, work, memory_bytes=memory_bytes)
    shards = find_shards(held_out) if held_out else grown.shards
    samples = sample_texts(shards, request, NUM_REPORTED_TEXTS)
    where = "texts that were not counted" if held_out else "the beginnings of the corpus's own texts"
    domains = compare(grown.base, grown.tokenizer, samples)
    has_weights = request.base.is_dir() and any(request.base.glob("*.safetensors"))
    if has_weights:
        from train.vocabulary.losses import losses_before_training  # transformers: seconds to import

        texts = [text for sample in samples.values() for text in sample[: NUM_LOSS_TEXTS // len(samples) + 1]]
        rows = RowMaker(grown, work)
        report = report_files(grown, domains, losses_before_training(grown, rows, texts), where)
        write_checkpoint(grown, rows, out, overwrite=overwrite, extra=report)
    else:
        write_tokenizer(grown, out, overwrite=overwrite, extra=report_files(grown, domains, [], where))
    return grown


def read_texts_of(file: Path | None) -> tuple[str, ...]:
    """The first column of a file of one token's text per line; a review table's heading is passed over."""
    if file is None:
        return ()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            file,
            expected="a text file, a token's text on each line",
            found=str(error),
            next_step="check the path",
        ) from None
    texts = [line.split("\t")[0] for line in lines]
    return tuple(text for text in texts if text.strip() and text != "text")


def bytes_of(amount: str) -> int:
    """An amount of memory as people write it: 2GB, 4096MB.

    Raises: RecipeError for anything else, or less than what is needed whatever the corpus.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = amount[:-2].strip(), amount[-2:].upper()
    if unit not in units or not number.replace(".", "", 1).isdigit():
        raise RecipeError(
            "--memory", expected="a number and KB, MB or GB", found=repr(amount), next_step="write 2GB"
        )
    found = int(float(number) * units[unit])
    if found < LEAST_MEMORY:
        raise RecipeError(
            "--memory",
            expected=f"at least {LEAST_MEMORY // units['GB']}GB, for libraries and the intermediate tokenizer",
            found=amount,
            next_step="give more",
        )
    return found
