"""The checkpoint contract: what opens, what is refused and how, and that nothing half-written ever opens."""

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from malmoi import chat, provenance
from malmoi.checkpoint import check_golden, create_checkpoint, open_checkpoint
from malmoi.errors import CheckpointError, LockError, OutputError
from malmoi.provenance import Origin, Rendering
from malmoi.safetensors_header import read_headers
from tests.support.checkpoints import create_tiny_checkpoint, render_saved, save_model, save_tokenizer

WEIGHTS = "model.safetensors"
ORIGIN = Origin(recipe="test", stage="chat", seed=1, data={"corpus": "0" * 64}, metrics={"accuracy": 0.5})


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny"))


@pytest.fixture
def foreign(checkpoint: Path) -> Path:
    """As from the Hub: no malmoi.json."""
    (checkpoint / "malmoi.json").unlink()
    return checkpoint


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: entry for name, entry in value.items() if entry is not None}))


def edit_header(path: Path, **changes: object) -> None:
    """Changes what a safetensors file says of its input embeddings, in as many bytes."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header["model.embed_tokens.weight"] |= changes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + length :])


def test_opens_what_was_created(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    assert checkpoint.vocab_size == len(checkpoint.vocabulary) == 384
    assert (checkpoint.bos_token, checkpoint.eos_token) == ("<s>", "</s>")
    assert checkpoint.template == chat.TEMPLATE
    assert checkpoint.quantization is None
    assert checkpoint.notes == ()
    assert checkpoint.weight_bytes == sum(
        2 * rows * columns
        for rows, columns in (t.shape for t in checkpoint.tensors.values() if len(t.shape) == 2)
    ) + sum(2 * t.shape[0] for t in checkpoint.tensors.values() if len(t.shape) == 1)


def test_records_where_it_came_from(tiny_checkpoint: Path) -> None:
    import hashlib

    recorded = open_checkpoint(tiny_checkpoint).provenance
    assert recorded is not None
    names = {path.name for path in tiny_checkpoint.iterdir()} - {"malmoi.json"}
    assert set(recorded.files) == names
    for name, record in recorded.files.items():
        assert record.sha256 == hashlib.sha256((tiny_checkpoint / name).read_bytes()).hexdigest()


def test_reads_headers_only(foreign: Path) -> None:
    """A file of one tebibyte (sparse) opens: nothing of it but the header can have been read."""
    weights = foreign / "model.safetensors"
    raw = weights.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    header["extra.weight"] = {"dtype": "U8", "shape": [2**40], "data_offsets": [end, end + 2**40]}
    encoded = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(encoded)) + encoded)
    os.truncate(weights, 8 + len(encoded) + end + 2**40)
    assert open_checkpoint(foreign).weight_bytes > 2**40


def test_from_elsewhere_is_accepted_and_said_once(foreign: Path) -> None:
    notes = open_checkpoint(foreign).notes
    assert len(notes) == 1
    assert "no malmoi.json" in notes[0]


Damage = Callable[[Path], Any]
DAMAGE: dict[str, tuple[Damage, str, str]] = {
    "config missing": (lambda d: (d / "config.json").unlink(), "config.json", "no such file"),
    "tokenizer missing": (lambda d: (d / "tokenizer.json").unlink(), "tokenizer.json", "no such file"),
    "tokenizer config missing": (lambda d: (d / "tokenizer_config.json").unlink(), "er_config.json", "no such"),
    "config not JSON": (lambda d: (d / "config.json").write_text('{\n "a": 1,\n}'), "config.json:3", ""),
    "config a list": (lambda d: (d / "config.json").write_text("[]"), "config.json:1", "list"),
    "weights missing": (lambda d: (d / "model.safetensors").unlink(), "tiny", "no weights"),
    "pickle instead": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        "tiny",
        "pickled weights (pytorch_model.bin)",
    ),
    "weights cut short": (lambda d: os.truncate(d / WEIGHTS, 9000), WEIGHTS, "9000 bytes"),
    "weights empty": (lambda d: os.truncate(d / WEIGHTS, 0), WEIGHTS, "0 bytes"),
    "weights garbage": (lambda d: (d / WEIGHTS).write_bytes(b"\x08" + 15 * b"\0"), WEIGHTS, ""),
    "remote code": (
        lambda d: edit_json(d / "config.json", auto_map={"AutoModel": "x.Y"}), "config.json", "AutoModel",
    ),
    "remote tokenizer": (
        lambda d: edit_json(d / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}),
        "tokenizer_config.json",
        "auto_map",
    ),
    "rows": (lambda d: edit_json(d / "config.json", vocab_size=400), "model.safetensors", "384"),
    "no vocab_size": (lambda d: edit_json(d / "config.json", vocab_size=None), "config.json", "none"),
    "tokenizer too long": (lambda d: save_tokenizer(d, vocab_size=448), "tokenizer.json", "413"),
    "eos not a token": (
        lambda d: edit_json(d / "tokenizer_config.json", eos_token="<end>"), "tokenizer_config.json", "'<end>'",
    ),
    "eos id not a token": (
        lambda d: edit_json(d / "generation_config.json", eos_token_id=[2, 999]),
        "generation_config.json",
        "999",
    ),
    "dtype of half the width": (lambda d: edit_header(d / WEIGHTS, dtype="F8_E4M3"), WEIGHTS, " bytes"),
    "shape of other rows": (lambda d: edit_header(d / WEIGHTS, shape=[384, 127]), WEIGHTS, " bytes"),
    "dtype that is none": (lambda d: edit_header(d / WEIGHTS, dtype="?"), WEIGHTS, "header"),
    "template not UTF-8": (
        lambda d: (d / "chat_template.jinja").write_bytes("{{ '가' }}".encode("cp949")), "te.jinja", "utf",
    ),
    "tokenizer of another kind": (
        lambda d: (d / "tokenizer.json").write_text('{"version": 1}'), "tokenizer.json", "no vocabulary",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_refuses_naming_file_and_next_step(foreign: Path, name: str) -> None:
    damage, where, found = DAMAGE[name]
    damage(foreign)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(foreign)
    assert error.value.where.endswith(where)
    assert found in error.value.found
    assert error.value.next_step
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", set(DAMAGE) - {"tokenizer missing", "tokenizer too long", "tokenizer of another kind"}
)
def test_refuses_damage_to_one_of_ours_too(checkpoint: Path, name: str) -> None:
    DAMAGE[name][0](checkpoint)
    with pytest.raises(CheckpointError):
        open_checkpoint(checkpoint)


def test_missing_directory_names_its_neighbours(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="beside it there are: tiny"):
        open_checkpoint(checkpoint.parent / "tyni")


def test_sharded_checkpoint(foreign: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = open_checkpoint(foreign)
    tensors = load_file(foreign / "model.safetensors")
    (foreign / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, foreign / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (foreign / "model.safetensors.index.json").write_text(json.dumps(index))
    assert open_checkpoint(foreign).weight_bytes == whole.weight_bytes

    index["weight_map"]["ghost.weight"] = "b.safetensors"
    (foreign / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"b\.safetensors: expected tensor ghost\.weight"):
        open_checkpoint(foreign)
    (foreign / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.safetensors: expected the shard .* found no such file"):
        open_checkpoint(foreign)


def test_ghost_rows_are_noted_in_others_and_refused_in_ours(tmp_path: Path) -> None:
    def write(directory: Path) -> None:
        save_tokenizer(directory, vocab_size=383)
        save_model(directory, vocab_size=384)

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write(foreign)
    assert any("1 embedding rows belong to no token" in note for note in open_checkpoint(foreign).notes)
    with (
        pytest.raises(CheckpointError, match="1 embedding rows"),
        create_checkpoint(tmp_path / "ours", ORIGIN, renderer=render_saved) as partial,
    ):
        write(partial)
    assert not (tmp_path / "ours").exists()


def swap_eos(directory: Path) -> None:
    edit_json(directory / "tokenizer_config.json", eos_token="<s>")
    edit_json(directory / "generation_config.json", eos_token_id=1)


LOCK_BREAKERS: dict[str, Damage] = {
    "template": lambda d: (d / "chat_template.jinja").write_text(chat.TEMPLATE + " "),
    "template gone": lambda d: (d / "chat_template.jinja").unlink(),
    "tokenizer": lambda d: (d / "tokenizer.json").write_text((d / "tokenizer.json").read_text() + " "),
    "eos": swap_eos,
}  # fmt: skip


@pytest.mark.parametrize("name", LOCK_BREAKERS)
def test_broken_lock_does_not_open(checkpoint: Path, name: str) -> None:
    LOCK_BREAKERS[name](checkpoint)
    with pytest.raises(LockError, match=r"as locked in malmoi\.json"):
        open_checkpoint(checkpoint)


def test_golden_prompt_is_compared_text_and_ids(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    rendering = render_saved(tiny_checkpoint, chat.GOLDEN_CONVERSATION)
    check_golden(checkpoint, rendering)
    for other in (
        Rendering(text=rendering.text + "\n", token_ids=rendering.token_ids),
        Rendering(text=rendering.text, token_ids=[1, *rendering.token_ids]),
    ):
        with pytest.raises(LockError, match="golden prompt"):
            check_golden(checkpoint, other)


def test_same_size_but_other_weights_pass_other_config_does_not(checkpoint: Path) -> None:
    """Weights are compared by size, so that opening stays cheap; every other file by digest."""
    weights = bytearray((checkpoint / WEIGHTS).read_bytes())
    weights[-1] ^= 0x80  # the sign of the last one
    (checkpoint / WEIGHTS).write_bytes(weights)
    recorded = open_checkpoint(checkpoint).provenance
    assert recorded is not None
    assert provenance.file_digest(checkpoint / WEIGHTS) != recorded.files[WEIGHTS].sha256
    edit_json(checkpoint / "generation_config.json", temperature=0.1)
    with pytest.raises(
        CheckpointError, match=r"generation_config\.json: expected the .* bytes malmoi\.json records"
    ):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"),
        *("adapter_config.json", "generation_config.json", "chat_template.jinja", "another.jinja"),
        *("special_tokens_map.json", "added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt"),
    ],
)
def test_file_added_that_would_change_the_model_is_refused(checkpoint: Path, name: str) -> None:
    record = json.loads((checkpoint / "malmoi.json").read_text())
    record["files"].pop(name, None)
    if name == "chat_template.jinja":
        record["lock"]["template"] = provenance.text_digest((checkpoint / name).read_text())
    (checkpoint / "malmoi.json").write_text(json.dumps(record))
    if not (checkpoint / name).exists():
        shutil.copy(
            checkpoint / (WEIGHTS if name.endswith(".safetensors") else "config.json"), checkpoint / name
        )
    if name == "model.safetensors.index.json":
        index = {"weight_map": dict.fromkeys(read_headers(checkpoint / WEIGHTS), WEIGHTS)}
        (checkpoint / name).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"expected only files that malmoi\.json records") as error:
        open_checkpoint(checkpoint)
    assert error.value.where.endswith(name)


def test_file_added_that_changes_nothing_is_accepted(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("# 말모이")
    assert open_checkpoint(checkpoint).notes == ()


def test_no_quantization_may_be_said_as_null(foreign: Path) -> None:
    config = json.loads((foreign / "config.json").read_text()) | {"quantization_config": None}
    (foreign / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(foreign).quantization is None


def test_existing_directory_is_kept_unless_overwritten(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(OutputError, match="--overwrite"), create_checkpoint(out, ORIGIN):
        pytest.fail("the block must not run")
    assert (out / "precious").read_text() == "x"
    create_tiny_checkpoint(out, overwrite=True)
    assert open_checkpoint(out).notes == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_failed_run_leaves_what_was_there(tiny_checkpoint: Path, checkpoint: Path) -> None:
    before = provenance.record_files(checkpoint)
    with pytest.raises(ZeroDivisionError), create_checkpoint(checkpoint, ORIGIN, overwrite=True) as partial:
        save_tokenizer(partial)
        raise ZeroDivisionError
    assert provenance.record_files(checkpoint) == before
    assert not checkpoint.with_name("tiny.partial").exists()


def test_incomplete_checkpoint_is_never_published(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match=r"config\.json: expected the file"),
        create_checkpoint(tmp_path / "out", ORIGIN, renderer=render_saved) as partial,
    ):
        save_tokenizer(partial)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="a full disk") as error,
        create_checkpoint(tmp_path / "out", ORIGIN, renderer=render_saved) as partial,
    ):
        (partial / "model.safetensors").symlink_to("/dev/full")  # the kernel answers ENOSPC to every write
        save_tokenizer(partial)
        with (partial / "model.safetensors").open("wb", buffering=0) as file:
            file.write(b"weights")
    assert error.value.__cause__.errno == errno.ENOSPC  # type: ignore[union-attr]
    assert list(tmp_path.iterdir()) == []


def test_full_disk_as_safetensors_says_it(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="a full disk"),
        create_checkpoint(tmp_path / "out", ORIGIN, renderer=render_saved),
    ):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with (
        pytest.raises(SafetensorError, match="InvalidHeader"),
        create_checkpoint(tmp_path / "out", ORIGIN, renderer=render_saved),
    ):
        raise SafetensorError("Error while deserializing: InvalidHeader")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_place_that_cannot_be_written(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="out: expected a place that can be written, found "),
        create_checkpoint(tmp_path / parent / "out", ORIGIN),
    ):
        pytest.fail("the block must not run")


def test_two_runs_cannot_write_the_same_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), create_checkpoint(tmp_path / "out", ORIGIN):
        with pytest.raises(OutputError, match="no other run"), create_checkpoint(tmp_path / "out", ORIGIN):
            pytest.fail("the block must not run")
        assert (tmp_path / "out.partial").is_dir()
        raise ZeroDivisionError


KILLED = """
import os, signal, sys
from pathlib import Path
from malmoi.checkpoint import create_checkpoint
from malmoi.provenance import Origin
from tests.support.checkpoints import save_model, save_tokenizer
with create_checkpoint(Path(sys.argv[1]), Origin(recipe="t", stage="s")) as partial:
    save_tokenizer(partial)
    save_model(partial)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_leaves_nothing_that_opens(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()
    assert not out.exists()
    partial = tmp_path / "out.partial"
    assert (partial / "model.safetensors").exists(), "all was written when the process was killed"
    with pytest.raises(CheckpointError, match="broken off"):
        open_checkpoint(partial)
    create_tiny_checkpoint(out)
    assert open_checkpoint(out).notes == ()
    assert not partial.exists()


def test_same_content_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (create_tiny_checkpoint(tmp_path / name) for name in ("first", "second"))
    assert provenance.record_files(first) == provenance.record_files(second)
    assert (first / "malmoi.json").read_bytes() == (second / "malmoi.json").read_bytes()
    assert provenance.checkpoint_digest(provenance.record_files(first)) == provenance.checkpoint_digest(
        provenance.record_files(second)
    )


def test_unreadable_provenance_says_so(checkpoint: Path) -> None:
    (checkpoint / "malmoi.json").write_text("{}")
    with pytest.raises(CheckpointError, match="a record that malmoi wrote"):
        open_checkpoint(checkpoint)
    edit_json(checkpoint / "malmoi.json", format=99)
    with pytest.raises(CheckpointError, match="format 99"):
        open_checkpoint(checkpoint)
