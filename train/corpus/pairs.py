"""Translation pairs out of shards, each as one text: a sentence and, on the next line, the other language's."""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from malmoi.errors import CorpusError
from train.corpus import reading
from train.corpus.reading import NFC, BadLineError, OnBadLine, Reading
from train.corpus.shards import Shard


class PairReader(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """Reads this task's share of `shards` into documents, one for each pair, and writes Readings into `folder`.

    The languages take turns in coming first, so that both directions are learnt.
    """

    type = "📖 - READER"
    name = "malmoi pairs"

    def __init__(
        self, shards: Sequence[Shard], folder: Path, *, fields: tuple[str, str], on_bad_line: OnBadLine
    ) -> None:
        super().__init__()
        self.shards = shards
        self.folder = folder
        self.fields = fields
        self.on_bad_line = on_bad_line

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields a document for every pair of the shards rank, rank + world_size, ..."""
        if data:
            yield from data
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(rank, len(self.shards), world_size):
            found = Reading(str(self.shards[number]))
            for text in read_pairs(self.shards[number], self.fields, self.on_bad_line, found):
                yield Document(text=text, id=f"{number}/{found.num_texts}")
            record = json.dumps({name: getattr(found, name) for name in Reading.__slots__}, ensure_ascii=False)
            (self.folder / f"{number:05d}.json").write_text(record, encoding="utf-8")


def read_pairs(shard: Shard, fields: tuple[str, str], on_bad_line: OnBadLine, found: Reading) -> Iterator[str]:
    """Every pair of the shard as a text, in NFC; what was met on the way is recorded in `found`.

    Raises: CorpusError for a bad line where they are refused, or a shard of plain text.
    """
    if shard.format == "text":
        raise CorpusError(
            shard,
            expected=f"the fields {fields[0]!r} and {fields[1]!r}",
            found="a file of plain text",
            next_step="give pairs as JSONL or Parquet",
        )
    firsts, seconds = (reading.entries(shard, field) for field in fields)
    for line, (first, second) in enumerate(zip(firsts, seconds, strict=True), 1):
        if isinstance(first, BadLineError) or isinstance(second, BadLineError):
            bad = first if isinstance(first, BadLineError) else second
            assert isinstance(bad, BadLineError), "one of them is"
            if on_bad_line == "refuse":
                raise CorpusError(
                    f"{shard}:{line}",
                    expected=f"texts in the fields {fields[0]!r} and {fields[1]!r}",
                    found=str(bad),
                    next_step="mend the line, or pass --on-bad-line skip",
                )
            found.note(line, bad)
        elif not first or not second:
            found.num_empty += 1
        else:
            both = (first, second) if found.num_texts % 2 == 0 else (second, first)
            text = "\n".join(part.strip() for part in both)
            if not unicodedata.is_normalized(NFC, text):
                text = unicodedata.normalize(NFC, text)
                found.num_normalised += 1
            found.num_texts += 1
            found.num_bytes += len(text.encode())
            yield text
