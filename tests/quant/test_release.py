"""A release holds everything that is promised of it, and planted damage does not get out."""

import hashlib
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from malmoi import provenance, signing
from malmoi.checkpoint import create_checkpoint, open_checkpoint
from malmoi.errors import MalmoiError, OutputError, ReleaseError
from malmoi.provenance import Origin, checkpoint_digest, record_files
from quant import release
from quant.fidelity import Fidelity
from quant.release import Release
from tests.support.checkpoints import KOREAN, create_tiny_checkpoint, render_saved, save_tokenizer
from tests.support.command import kill_alone_when
from tests.support.exports import create_grown_chat
from tests.support.releases import (
    create_bnb_export,
    good_fidelity,
    pack_zeros,
    say_packing,
    write_certified_key,
    write_keys,
    write_report,
)

REPO = "someone/tiny-nf4"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a license and a card of its own."""
    parent = create_grown_chat(tmp_path_factory.mktemp("releases") / "tiny")
    (parent / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004")
    (parent / "README.md").write_text("---\nlanguage: [ko]\n---\n# Tiny\n")
    return parent


@pytest.fixture(scope="module")
def export(parent: Path) -> Path:
    return create_bnb_export(parent, parent.with_name("export"))


@pytest.fixture(scope="module")
def fidelity(parent: Path, export: Path) -> Fidelity:
    return good_fidelity(parent, export)


@pytest.fixture
def report(fidelity: Fidelity, tmp_path: Path) -> Path:
    return write_report(tmp_path / "export.fidelity", fidelity)


class RecordingHub(HfApi):
    """Takes what HfApi takes, and keeps it to itself."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.calls: list[tuple[str, dict[str, object]]] = []

    def create_repo(self, *arguments: Any, **options: Any) -> Any:
        self._record("create_repo", *arguments, **options)

    def upload_folder(self, *arguments: Any, **options: Any) -> Any:
        if self.error:
            raise self.error
        self._record("upload_folder", *arguments, **options)
        return f"https://huggingface.co/{options['repo_id']}/commit/1"

    def _record(self, name: str, *arguments: object, **options: object) -> None:
        bound = inspect.signature(getattr(HfApi, name)).bind(self, *arguments, **options).arguments
        self.calls.append((name, {key: value for key, value in bound.items() if key != "self"}))


def test_a_release_is_whole(parent: Path, export: Path, report: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    before = [checkpoint_digest(record_files(path)) for path in (parent, export)]
    out = tmp_path / "tiny-nf4"
    made = release.run(export, parent=parent, fidelity=report, out=out, sign_key=private)

    assert [checkpoint_digest(record_files(path)) for path in (parent, export)] == before
    names = {path.name for path in out.iterdir()}
    exported = open_checkpoint(export).provenance
    assert exported is not None
    promised = {"README.md", "LICENSE", "malmoi.json", "SHA256SUMS", "model.sig"}
    promised |= {"fidelity.json", "fidelity.md", "fidelity.png"}
    assert names == promised | exported.files.keys()
    assert made.num_bytes == {name: (out / name).stat().st_size for name in names}
    for name in exported.files:
        assert (out / name).read_bytes() == (export / name).read_bytes()

    opened = open_checkpoint(out)
    assert opened.provenance is not None
    assert opened.provenance.lock == exported.lock
    origin = opened.provenance.origin
    assert (origin.parent, origin.recipe) == (before[0], exported.origin.recipe)
    assert opened.provenance.ledger is not None
    assert [entry.stage for entry in opened.provenance.ledger.entries] == ["all", "export", "release"]
    assert opened.provenance.ledger.entries[-1].changed == ()
    assert origin.metrics["korean_kl_mean"] == 0.01
    assert origin.metrics["kobest_copa"] == 0.62
    signing.verify(out, public)
    page = (out / "fidelity.md").read_text().partition("\n\n## Answers")[0].split("\n\n", 1)[1]
    assert page in (out / "README.md").read_text()
    assert "signed" in str(made)


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["fidelity.json", "README.md"])
def test_killed_it_leaves_nothing_that_opens_and_can_be_run_again(
    parent: Path, export: Path, report: Path, tmp_path: Path, seen: str
) -> None:
    before = record_files(export)
    private, public = write_keys(tmp_path / "keys")
    out = tmp_path / "made" / "release"
    out.parent.mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "quant", "release", str(export), "--parent", str(parent)]
    command += ["--fidelity", str(report), "--out", str(out), "--sign-key", str(private)]
    kill_alone_when(command, lambda: any(out.parent.glob(f"*/{seen}")))
    assert not out.exists()
    assert record_files(export) == before
    for leftover in out.parent.iterdir():
        with pytest.raises(MalmoiError):
            open_checkpoint(leftover)
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    signing.verify(out, public)
    assert [path.name for path in out.parent.iterdir()] == ["release"]


def test_checksums_are_those_of_sha256sum(parent: Path, export: Path, report: Path, tmp_path: Path) -> None:
    out = tmp_path / "unsigned"
    release.run(export, parent=parent, fidelity=report, out=out)
    lines = [line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {path.name for path in out.iterdir()} - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert not (out / signing.SIGNATURE_FILE).exists()


@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_the_command_of_the_card_verifies_it(
    parent: Path, export: Path, report: Path, tmp_path: Path, kind: str
) -> None:
    """Also where the files are links into the Hub's cache, or lie beside what its client notes."""
    private, public = (write_keys if kind == "key" else write_certified_key)(tmp_path / "keys")
    made = tmp_path / "made"
    release.run(export, parent=parent, fidelity=report, out=made, sign_key=private)
    linked = tmp_path / "linked"
    (linked / ".cache" / "huggingface").mkdir(parents=True)
    (linked / ".cache" / "huggingface" / "note").touch()
    for file in made.iterdir():
        (linked / file.name).symlink_to(file)
    found = re.search(r"`model_signing (verify .*?)`", (made / "README.md").read_text())
    assert found is not None
    words = [str(public) if word == public.name else word for word in shlex.split(found[1])]
    for directory in (made, linked):
        command = [sys.executable, "-m", "model_signing", *words]
        done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["..", "export"])
def test_what_a_release_is_made_of_is_not_replaced(
    parent: Path, export: Path, report: Path, tmp_path: Path, name: str
) -> None:
    mine = copy_of(export, tmp_path / "export")
    with pytest.raises(OutputError, match="apart from what is read"):
        release.run(mine, parent=parent, fidelity=report, out=mine.parent / name, overwrite=True)
    open_checkpoint(mine)


def test_a_dry_run_where_nothing_can_be_written(parent: Path, export: Path, report: Path) -> None:
    out = Path("/proc/nothing/out")
    with pytest.raises(OutputError, match="expected a place that can be written"):
        release.run(export, parent=parent, fidelity=report, out=out, dry_run=True)


def test_what_fails_the_gate_is_named_and_nothing_is_written(
    parent: Path, export: Path, fidelity: Fidelity, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    korean = fidelity.text["korean"]
    assert korean is not None
    zeroed = replace(korean, export=replace(korean.export, perplexity=900.0), kl_mean=4.0)
    report = write_report(tmp_path / "report", replace(fidelity, text={**fidelity.text, "korean": zeroed}))
    with pytest.raises(
        ReleaseError, match=r"found korean perplexity, ratio: 56\.25.*; korean KL mean, nats: 4"
    ):
        release.run(export, parent=parent, fidelity=report, out=tmp_path / "out")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused: ")]
    assert [line.split(":")[1].strip() for line in lines] == [
        "korean perplexity, ratio",
        "korean KL mean, nats",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


def copy_of(export: Path, out: Path) -> Path:
    return Path(shutil.copytree(export, out))


def flip_a_weight(export: Path) -> None:
    with (export / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))


def edit_the_template(export: Path) -> None:
    file = export / "chat_template.jinja"
    file.write_text(file.read_text().replace("### User", "### Human"))


def train_another_tokenizer(export: Path) -> None:
    save_tokenizer(export, sentences=[sentence[::-1] for sentence in KOREAN])


def swap_shards(export: Path) -> None:
    """Splits the weights in two, and gives each half the other's name."""
    tensors = load_file(export / "model.safetensors")
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for half, file in zip(halves, reversed(files), strict=True):
        save_file({name: tensors[name] for name in half}, export / file, metadata={"format": "pt"})
    weight_map = {name: file for half, file in zip(halves, files, strict=True) for name in half}
    (export / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (export / "model.safetensors").unlink()


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a flipped weight": (r"model\.safetensors: expected the file malmoi\.json records", flip_a_weight),
    "an edited template": (r"chat_template\.jinja: expected chat template", edit_the_template),
    "another tokenizer": (r"tokenizer\.json: expected tokenizer", train_another_tokenizer),
    "swapped shards": (r"expected tensor .*, as model\.safetensors\.index\.json says", swap_shards),
    "no malmoi.json": (r"found no malmoi\.json", lambda export: (export / "malmoi.json").unlink()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_planted_damage_does_not_get_out(
    parent: Path, export: Path, report: Path, tmp_path: Path, damage: str
) -> None:
    found, plant = DAMAGE[damage]
    damaged = copy_of(export, tmp_path / "damaged")
    plant(damaged)
    with pytest.raises(MalmoiError, match=found):
        release.run(damaged, parent=parent, fidelity=report, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (edit_the_template, "expected chat template"),
        (train_another_tokenizer, "expected tokenizer"),
    ],
)
def test_damage_that_the_export_itself_records(
    parent: Path, export: Path, tmp_path: Path, damage: Callable[[Path], None], found: str
) -> None:
    """Its own lock holds: it is its parent's that does not."""
    made = open_checkpoint(export).provenance
    assert made is not None
    with create_checkpoint(tmp_path / "damaged", made.origin, renderer=render_saved) as damaged:
        for name in made.files:
            shutil.copyfile(export / name, damaged / name)
        damage(damaged)
    report = write_report(tmp_path / "report", good_fidelity(parent, tmp_path / "damaged"))
    with pytest.raises(ReleaseError, match=found):
        release.run(tmp_path / "damaged", parent=parent, fidelity=report, out=tmp_path / "out")


def test_other_settings_than_those_of_the_packing(parent: Path, tmp_path: Path) -> None:
    digest = checkpoint_digest(record_files(parent))
    origin = Origin(recipe="gptq", stage="quantization", seed=0, parent=digest)
    damaged = tmp_path / "damaged"
    with create_checkpoint(damaged, origin, renderer=render_saved) as partial:
        pack_zeros(parent, partial)
        say_packing(partial, group_size=128)
    report = write_report(tmp_path / "report", good_fidelity(parent, damaged))
    with pytest.raises(ReleaseError, match=r"_proj\.scales: expected .* as bits=4 and group_size=128"):
        release.run(damaged, parent=parent, fidelity=report, out=tmp_path / "out")


def test_measurements_of_another_export(parent: Path, export: Path, tmp_path: Path) -> None:
    measured, other = good_fidelity(parent, export), "f" * 64
    for number, (mixed_up, found) in enumerate(
        ((replace(measured, export=other), "an export"), (replace(measured, parent=other), "a parent"))
    ):
        report = write_report(tmp_path / str(number), mixed_up)
        with pytest.raises(ReleaseError, match=rf"fidelity\.json: expected {found} .*found ffffffffffff"):
            release.run(export, parent=parent, fidelity=report, out=tmp_path / "out")


def test_another_parent(export: Path, report: Path, tmp_path: Path) -> None:
    other = create_tiny_checkpoint(tmp_path / "other", intermediate_size=512)
    with pytest.raises(ReleaseError, match="expected a parent"):
        release.run(export, parent=other, fidelity=report, out=tmp_path / "out")


def test_what_was_not_measured_is_not_released(parent: Path, export: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError, match=r"found no fidelity\.json; measure the export: malmoi-quant check"):
        release.run(export, parent=parent, fidelity=tmp_path / "empty", out=tmp_path / "out")


def test_what_is_not_quantized_is_not_released(parent: Path, report: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="found a checkpoint that is not quantized"):
        release.run(parent, parent=parent, fidelity=report, out=tmp_path / "out")


def test_what_is_there_stays(parent: Path, export: Path, report: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        release.run(export, parent=parent, fidelity=report, out=out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    release.run(export, parent=parent, fidelity=report, out=out, overwrite=True)
    assert open_checkpoint(out).quantization == "bitsandbytes"


def test_a_dry_run_tells_what_would_go_and_leaves_nothing(
    parent: Path, export: Path, report: Path, tmp_path: Path
) -> None:
    private, _ = write_keys(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    hub = RecordingHub()
    made = run_to_hub(parent, export, report, tmp_path / "a/b/out", hub, dry_run=True, sign_key=private)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert hub.calls == []
    told = str(made)
    assert all(name in told for name in ("README.md", "model.safetensors", "model.sig", "SHA256SUMS", REPO))
    assert f"{(export / 'model.safetensors').stat().st_size:,}" in told


def test_a_release_is_sent_whole_and_alone(parent: Path, export: Path, report: Path, tmp_path: Path) -> None:
    hub = RecordingHub()
    with pytest.raises(ReleaseError, match=r"--base-model: expected OWNER/NAME, .*found tiny"):
        run_to_hub(parent, export, report, tmp_path / "out", hub, base_model=None)
    made = run_to_hub(parent, export, report, tmp_path / "out", hub)
    (created, repo), (uploaded, folder) = hub.calls
    assert (created, repo) == ("create_repo", {"repo_id": REPO, "private": True, "exist_ok": True})
    assert uploaded == "upload_folder"
    assert folder.pop("commit_message") == "Release out"
    assert folder == {"repo_id": REPO, "folder_path": tmp_path / "out", "delete_patterns": "*"}
    assert made.url == f"https://huggingface.co/{REPO}/commit/1"
    assert f"# {REPO}\n" in (tmp_path / "out" / "README.md").read_text()


def test_a_hub_that_does_not_take_it(parent: Path, export: Path, report: Path, tmp_path: Path) -> None:
    hub = RecordingHub(ConnectionError("401 Client Error\nmore"))
    with pytest.raises(ReleaseError, match=r"found 401 Client Error; it is in .*hf upload someone/tiny-nf4"):
        run_to_hub(parent, export, report, tmp_path / "out", hub)
    assert open_checkpoint(tmp_path / "out").quantization == "bitsandbytes"


def test_a_bad_repository_or_key_is_known_before_anything_is_read(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(ReleaseError, match="--push: expected OWNER/NAME"):
        release.run(nothing, parent=nothing, fidelity=nothing, out=tmp_path / "out", push="a/b/c")
    with pytest.raises(ReleaseError, match="elliptic curve private key"):
        release.run(nothing, parent=nothing, fidelity=nothing, out=tmp_path / "out", sign_key=nothing)


def run_to_hub(parent: Path, export: Path, report: Path, out: Path, hub: HfApi, **options: object) -> Release:
    options = {"base_model": "someone/tiny"} | options
    return release.run(export, parent=parent, fidelity=report, out=out, push=REPO, hub=hub, **options)  # type: ignore[arg-type]


def test_an_export_that_changes_while_it_is_copied(export: Path) -> None:
    before = provenance.read(export)
    assert before is not None
    after = dict(before.files)
    release.refuse_changed(export, before.files, after)
    after["config.json"] = replace(after["config.json"], sha256="0" * 64)
    with pytest.raises(ReleaseError, match=r"config\.json: expected .*found other content now"):
        release.refuse_changed(export, before.files, after)
