"""malmoi-quant release: an export that the gate lets out, with its card, its checksums and its signature."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from malmoi import provenance
from malmoi.checkpoint import Checkpoint, create_checkpoint, open_checkpoint
from malmoi.checkpoint_files import TOKENIZER_FILE
from malmoi.errors import ReleaseError
from malmoi.files import refuse_existing, writable
from malmoi.ledger import OpenEntry, digest_parts
from malmoi.provenance import (
    PROVENANCE_FILE,
    FileRecord,
    Origin,
    checkpoint_digest,
    file_digest,
    record_files,
    text_digest,
)
from malmoi.signing import CERTIFICATE, open_signer
from quant.card import SUMS_FILE, Facts, SignedWith, base_model_of, compose
from quant.fidelity import FIDELITY_FILE, PAGE_FILE, Fidelity, read
from quant.gate import GATE, Gate, Row, judge
from quant.hub import check_repo, open_hub, send
from quant.license import README, read_license, read_metadata
from quant.packing import check_packing
from quant.rendering import render

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPORT_FILES: Final = (FIDELITY_FILE, "fidelity.png")
"""What a release carries along of a check; its page is written anew, from the numbers that were judged."""
STAGE: Final = "release"
SAME: Final = ("tokenizer", "chat template", "eos_token", "bos_token")
"""What an export shares with its parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release that was written; of a dry run, what it would have been."""

    directory: Path
    facts: Facts
    num_bytes: Mapping[str, int]
    """Of each file."""
    repo: str | None
    """Where it goes on the Hub."""
    is_dry_run: bool
    url: str | None = None
    """Of the commit there."""

    def __str__(self) -> str:
        signed = "signed" if self.facts.signed_with else "not signed"
        told = f"{self.directory}: {len(self.facts.rows)} thresholds met; {len(self.num_bytes)} files, "
        told += f"{sum(self.num_bytes.values()):,} bytes, {signed}"
        if not self.is_dry_run:
            return f"{told}\n{self.url}" if self.url else told
        lines = [told, *(f"{size:>16,}  {name}" for name, size in self.num_bytes.items())]
        if self.repo:
            lines.append(f"to {self.repo}, private where it is new; what else is there would be removed")
        return "\n".join([*lines, "dry run: nothing was kept, nothing sent"])


def run(
    export: Path,
    *,
    parent: Path,
    fidelity: Path,
    out: Path,
    gate: Gate = GATE,
    sign_key: Path | None = None,
    base_model: str | None = None,
    push: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    hub: "HfApi | None" = None,
) -> Release:
    """Writes the release of an export into `out`, and sends it to the Hub if that is asked for.

    `fidelity`: the directory that `malmoi-quant check` wrote. `sign_key`: see malmoi.signing. `base_model`: the
    parent's id on the Hub, where it did not come from there. `push`: a repository's id, see quant.hub. A dry
    run writes everything, tells what it is, and removes it.

    Raises: ReleaseError if the gate refuses the export, it is not what was exported of this parent and was
    measured, it cannot be signed, or the Hub does not take it; CheckpointError, OutputError.
    """
    refuse_existing(out, overwrite or dry_run, inputs=(export, parent, fidelity, sign_key or export))
    signer = open_signer(sign_key) if sign_key else None
    hub = hub or (open_hub(push) if push else None)
    base_model = base_model or base_model_of(parent)
    if push:
        check_repo("--base-model", base_model)
    facts = _examine(
        export,
        parent,
        fidelity,
        gate,
        name=push or out.name,
        base_model=base_model,
        signed_with=_kind_of(sign_key) if sign_key else None,
    )
    release = Release(directory=out, num_bytes={}, facts=facts, repo=push, is_dry_run=dry_run)
    if dry_run:
        with ExitStack() as kept:
            with writable(out):
                folder = kept.enter_context(_beside(out))
            return replace(release, num_bytes=_write(Path(folder, out.name), facts, fidelity, signer))
    release = replace(release, num_bytes=_write(out, facts, fidelity, signer, overwrite=overwrite))
    return replace(release, url=send(out, push, hub)) if push and hub else release


def _beside(out: Path) -> TemporaryDirectory[str]:
    """On the disk that `out` will be on."""
    beside = next(folder for folder in out.absolute().parents if folder.is_dir())
    return TemporaryDirectory(prefix=f".{out.name}-", dir=beside)


def _kind_of(sign_key: Path) -> SignedWith:
    return "certificate" if CERTIFICATE in sign_key.read_bytes() else "key"


def _read_report(directory: Path) -> Fidelity:
    """What a check measured. Raises: ReleaseError if its files are not all there; CheckpointError."""
    for name in REPORT_FILES:
        if not (directory / name).is_file():
            raise ReleaseError(
                directory,
                expected=f"{', '.join(REPORT_FILES)}, as a check writes them",
                found=f"no {name}",
                next_step="measure the export: malmoi-quant check EXPORT --parent PARENT --korean FILES",
            )
    return read(directory / FIDELITY_FILE)


def _examine(
    export: Path,
    parent: Path,
    report: Path,
    gate: Gate,
    *,
    name: str,
    base_model: str,
    signed_with: SignedWith | None,
) -> Facts:
    """All that the card tells, the export having been found fit to go out."""
    from quant.fidelity_report import markdown

    made, origin = open_checkpoint(export), open_checkpoint(parent)
    fidelity = _read_report(report)
    _say(f"reading all of {export} and {parent}")
    check_identity(made, origin, fidelity)
    check_packing(made, origin)
    rows = judge(fidelity, gate, is_chat=made.template is not None)
    _refuse_failed(export, rows)
    return Facts(
        name=name,
        export=made,
        base_model=base_model,
        metadata=read_metadata(parent),
        license=read_license(parent),
        fidelity=fidelity,
        page=markdown(fidelity),
        gate=gate,
        rows=rows,
        signed_with=signed_with,
    )


def check_identity(export: Checkpoint, parent: Checkpoint, fidelity: Fidelity) -> None:
    """Raises ReleaseError if the export is not as it was made, or parent or measurements are not its own."""
    if export.provenance is None or export.quantization is None:
        raise ReleaseError(
            export.path,
            expected="what `malmoi-quant export` wrote",
            found=f"no {PROVENANCE_FILE}" if export.quantization else "a checkpoint that is not quantized",
            next_step="export the parent: malmoi-quant export PARENT --method gptq --out DIR",
        )
    files, made = record_files(export.path), export.provenance
    altered = [name for name, record in made.files.items() if files.get(name) != record]
    if altered:
        raise _other(
            export.path / altered[0], f"the file {PROVENANCE_FILE} records", "another", "export it again"
        )
    parent_digest, digest = checkpoint_digest(record_files(parent.path)), checkpoint_digest(files)
    check_again, measured = "measure it: malmoi-quant check", f"measurements in {FIDELITY_FILE}"
    for where, what, expected, found, next_step in (
        (export.path, "a parent", parent_digest, made.origin.parent, "name the one it was exported from"),
        (measured, "a parent", parent_digest, fidelity.parent, check_again),
        (measured, "an export", digest, fidelity.export, check_again),
        *(
            (export.path, what, parents, exports, "export the parent again")
            for what, parents, exports in zip(SAME, _same(parent), _same(export), strict=True)
        ),
    ):
        if found != expected:
            raise _other(where, f"{what} {_short(expected)}", _short(found), next_step)


def _same(checkpoint: Checkpoint) -> tuple[str | None, ...]:
    """What an export shares with its parent, in the order of SAME."""
    template = checkpoint.template
    return (
        file_digest(checkpoint.path / TOKENIZER_FILE),
        None if template is None else text_digest(template),
        checkpoint.eos_token,
        checkpoint.bos_token,
    )


def _refuse_failed(export: Path, rows: Sequence[Row]) -> None:
    failed = [row for row in rows if not row.is_met]
    for row in failed:
        _say(f"refused: {row}")
    if failed:
        raise ReleaseError(
            export,
            expected=f"all {len(rows)} thresholds of the gate met",
            found="; ".join(map(str, failed)),
            next_step="export it with smaller groups or other calibration, or name a gate of your own: --gate",
        )


def _write(
    out: Path,
    facts: Facts,
    report: Path,
    signer: Callable[[Path], None] | None,
    *,
    overwrite: bool = False,
) -> dict[str, int]:
    """Writes the release; the bytes of each file."""
    made = facts.export.provenance
    assert made is not None

    def seal(partial: Path) -> None:
        written = provenance.read(partial)
        assert written is not None
        refuse_changed(facts.export.path, made.files, written.files)
        digests = {name: record.sha256 for name, record in written.files.items()}
        digests[PROVENANCE_FILE] = file_digest(partial / PROVENANCE_FILE)
        lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
        (partial / SUMS_FILE).write_text("".join(lines), encoding="utf-8")
        if signer is not None:
            signer(partial)

    origin, past = _origin(made.origin, facts.fidelity), made.ledger
    entry = None
    if past is not None:
        before = digest_parts(facts.export.path, past.num_old)
        entry = OpenEntry(past=past, stage=STAGE, trains=(), before=before)
    with create_checkpoint(
        out, origin, renderer=render, entry=entry, seal=seal, overwrite=overwrite
    ) as partial:
        sources = [*(report / name for name in REPORT_FILES), *facts.license.files]
        sources += [facts.export.path / name for name in made.files]
        for source in sources:
            shutil.copyfile(source, partial / source.name)
        (partial / PAGE_FILE).write_text(facts.page, encoding="utf-8")
        (partial / README).write_text(compose(facts), encoding="utf-8")
    return {file.name: file.stat().st_size for file in sorted(out.iterdir())}


def refuse_changed(export: Path, before: Mapping[str, FileRecord], after: Mapping[str, FileRecord]) -> None:
    """Raises ReleaseError if a file of the export is not in the release as it was in the export."""
    for name, record in before.items():
        if name != README and after[name] != record:
            raise _other(export / name, "that it stays as it is", "other content now", "run the command again")


def _origin(origin: Origin, fidelity: Fidelity) -> Origin:
    """The export's, with what was measured."""
    metrics = dict(origin.metrics)
    for language, text in fidelity.text.items():
        if text is not None:
            metrics |= {
                f"{language}_{name}": getattr(text.export, name) for name in ("bits_per_byte", "perplexity")
            }
            metrics |= {
                f"{language}_{name}": getattr(text, name) for name in ("kl_mean", "kl_p99", "top1_agreement")
            }
    if fidelity.answers:
        metrics |= asdict(fidelity.answers.export)
    metrics |= {f"kobest_{task}": score.export for task, score in (fidelity.kobest or {}).items()}
    return replace(
        origin,
        data=dict(origin.data) | {f"check {name}": digest for name, digest in fidelity.data.items()},
        libraries=dict(fidelity.libraries) | dict(origin.libraries),
        metrics=metrics,
    )


def _other(where: object, expected: str, found: str, next_step: str) -> ReleaseError:
    return ReleaseError(where, expected=expected, found=found, next_step=next_step)


def _short(value: str | None) -> str:
    return "none" if value is None else value[:12]


def _say(what: str) -> None:
    print(what, file=sys.stderr)
