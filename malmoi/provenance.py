"""malmoi.json: where a checkpoint came from, a digest of every file, and the template/tokenizer lock.

The lock answers the most frequent report of a "bad model": trained with one template or eos, served with
another. It is taken when a checkpoint is created and checked whenever one is opened; the server also
renders the golden conversation again and compares text and token ids.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from malmoi.errors import CheckpointError
from malmoi.ledger import Ledger

PROVENANCE_FILE = "malmoi.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What made a checkpoint; the caller knows it before a file is written."""

    recipe: str
    stage: str
    seed: int | None = None
    parent: str | None = None
    """`checkpoint_digest` of the checkpoint this one was made from."""
    data: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each data source, by name."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A conversation as a checkpoint's own tokenizer and template render it."""

    text: str
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """SHA-256 digests of what turns a conversation into token ids; template and golden only of chat models."""

    tokenizer: str
    eos: str | None
    template: str | None = None
    golden_text: str | None = None
    golden_token_ids: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file as it was when the checkpoint was created."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """All that malmoi.json says."""

    origin: Origin
    files: Mapping[str, FileRecord]
    lock: Lock
    ledger: Ledger | None = None
    """Of the stages since the vocabulary was grown."""


def read(directory: Path) -> Provenance | None:
    """What malmoi.json in `directory` says; None where there is none.

    Raises: CheckpointError if it is there and cannot be read.
    """
    path = directory / PROVENANCE_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise CheckpointError(
                path,
                expected=f"format {FORMAT}",
                found=f"format {record['format']}",
                next_step="update malmoi, or remove the file to use the checkpoint unverified",
            )
        return Provenance(
            origin=Origin(**record["origin"]),
            files={name: FileRecord(**entry) for name, entry in record["files"].items()},
            lock=Lock(**record["lock"]),
            ledger=Ledger.from_record(record["ledger"]) if record.get("ledger") else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            path,
            expected="a record that malmoi wrote",
            found=f"{type(error).__name__}: {error}",
            next_step="copy the checkpoint again, or remove the file to use it unverified",
        ) from None


def write(directory: Path, provenance: Provenance) -> None:
    """Writes malmoi.json; the same provenance gives the same bytes."""
    record: dict[str, Any] = {"format": FORMAT} | asdict(provenance)
    if provenance.ledger is None:
        del record["ledger"]
    text = json.dumps(record, ensure_ascii=False, indent=2, sort_keys=True)
    (directory / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def record_files(directory: Path) -> dict[str, FileRecord]:
    """A record of every file in `directory` but malmoi.json itself."""
    return {
        path.name: FileRecord(sha256=file_digest(path), num_bytes=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != PROVENANCE_FILE
    }


def checkpoint_digest(files: Mapping[str, FileRecord]) -> str:
    """One SHA-256 for a whole checkpoint: of its files' names and digests."""
    return text_digest("".join(f"{files[name].sha256}  {name}\n" for name in sorted(files)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def ids_digest(token_ids: Sequence[int]) -> str:
    """SHA-256 of token ids, written in decimal with spaces between."""
    return text_digest(" ".join(map(str, token_ids)))


def library_versions(*distributions: str) -> dict[str, str]:
    """The installed version of each distribution; those not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
