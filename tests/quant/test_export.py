"""The contract: an export is there whole or not at all, and what it was made from is only read."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from malmoi.chat import GOLDEN_CONVERSATION
from malmoi.checkpoint import open_checkpoint
from malmoi.checkpoint_files import WEIGHTS, WEIGHTS_INDEX
from malmoi.errors import CheckpointError, ExportError, MalmoiError, OutputError
from malmoi.files import PARTIAL_SUFFIX
from malmoi.provenance import checkpoint_digest, record_files, text_digest
from quant.calibration import CalibrationSource
from quant.export import Request, clear_unfinished, export, remove_unfinished
from quant.recipe import BNB, GPTQ, Calibration, Gptq
from tests.support.checkpoints import KOREAN, create_tiny_checkpoint, save_model, save_tokenizer
from tests.support.command import kill_alone_when
from tests.support.exports import create_grown_chat

NF4 = BNB["release"]
GPTQ_SMALL = Gptq(name="small", source="a test", calibration=Calibration(num_tokens=1024, row_tokens=64))
RECIPE = f"{__name__}:GPTQ_SMALL"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_grown_chat(tmp_path_factory.mktemp("contract") / "grown")


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("texts") / "ko.txt"
    file.write_text("\n".join([" ".join(KOREAN)] * 40) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def copy(parent: Path, tmp_path: Path) -> Path:
    """A parent to spoil."""
    shutil.copytree(parent, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with no room for an export."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _without_provenance(directory: Path) -> Path:
    (directory / "malmoi.json").unlink()
    return directory


def _adapter(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")


def _missing_tokenizer(directory: Path) -> None:
    (_without_provenance(directory) / "tokenizer.json").unlink()


def _flipped_byte(directory: Path) -> None:
    with (directory / WEIGHTS).open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def _cut_short(directory: Path) -> None:
    file = _without_provenance(directory) / WEIGHTS
    os.truncate(file, file.stat().st_size - 100)


def _not_a_number(directory: Path) -> None:
    tensors = load_file(_without_provenance(directory) / WEIGHTS)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


def _unknown_architecture(directory: Path) -> None:
    config = json.loads((_without_provenance(directory) / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "mystery"}))


def _width_in_words(directory: Path) -> None:
    config = json.loads((_without_provenance(directory) / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"hidden_size": "128"}))


def _template_for_nobody(directory: Path) -> None:
    template = "{{ raise_exception('Not today') }}"
    (_without_provenance(directory) / "chat_template.jinja").write_text(template)


def _other_widths(directory: Path) -> None:
    config = json.loads((_without_provenance(directory) / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"intermediate_size": 512}))


@pytest.mark.parametrize(
    ("spoil", "error", "found"),
    [
        (_adapter, ExportError, r"adapter_config.json: expected a whole model, .*merge"),
        (_missing_tokenizer, CheckpointError, r"tokenizer.json: expected the file"),
        (_flipped_byte, CheckpointError, r"model.safetensors: expected the bytes that malmoi.json records"),
        (_cut_short, CheckpointError, r"model.safetensors: expected \d+ bytes"),
        (_not_a_number, ExportError, r"model.layers.1.mlp.up_proj.weight: expected finite numbers"),
        (_unknown_architecture, ExportError, r"config.json: expected a causal .* mystery"),
        (_width_in_words, ExportError, r"config.json: expected a causal .* expected int, got str"),
        (_template_for_nobody, ExportError, r"expected a chat template that renders .* Not today"),
        (_other_widths, ExportError, r"mlp.\w+_proj.weight: expected a tensor of shape"),
    ],
)
def test_a_parent_that_cannot_be_exported_is_refused(
    copy: Path, tmp_path: Path, spoil: Callable[[Path], None], error: type[MalmoiError], found: str
) -> None:
    spoil(copy)
    before = record_files(copy)
    with pytest.raises(error, match=found):
        export(copy, tmp_path / "export", recipe=NF4)
    assert record_files(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_ghost_rows_are_refused_before_the_work_and_the_step_named_helps(tmp_path: Path) -> None:
    parent = tmp_path / "ghosts"
    save_tokenizer(parent, sentences=KOREAN)
    save_model(parent, vocab_size=448)
    with pytest.raises(
        ExportError, match=r"64 embedding rows belong.*resize_token_embeddings\((\d+)\)"
    ) as told:
        export(parent, tmp_path / "export", recipe=NF4)
    found = re.search(r"resize_token_embeddings\((\d+)\)", str(told.value))
    assert found is not None
    model = AutoModelForCausalLM.from_pretrained(parent)
    model.resize_token_embeddings(int(found[1]))
    model.save_pretrained(parent)
    assert open_checkpoint(export(parent, tmp_path / "export", recipe=NF4).directory).vocab_size == 384


def test_an_eos_that_is_missing_is_refused_before_the_work(copy: Path, tmp_path: Path) -> None:
    file = _without_provenance(copy) / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in settings.items() if name != "eos_token"}))
    with pytest.raises(ExportError, match=r"no eos_token; set eos_token in tokenizer_config\.json"):
        export(copy, tmp_path / "export", recipe=NF4)


def test_a_template_that_refuses_a_system_turn_is_locked_without_one(copy: Path, tmp_path: Path) -> None:
    """As Gemma's does."""
    (_without_provenance(copy) / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    )
    made = open_checkpoint(export(copy, tmp_path / "export", recipe=NF4).directory).provenance
    assert made is not None
    text = "".join(f"<{turn.role}>{turn.content}" for turn in GOLDEN_CONVERSATION[1:])
    assert made.lock.golden_text == text_digest(text)


@pytest.mark.parametrize("out", ["models", "models/parent"])
def test_the_parent_is_not_replaced_by_its_export(parent: Path, tmp_path: Path, out: str) -> None:
    shutil.copytree(parent, tmp_path / "models" / "parent")
    with pytest.raises(OutputError, match="apart from what is read"):
        export(tmp_path / "models" / "parent", tmp_path / out, recipe=NF4, overwrite=True)
    open_checkpoint(tmp_path / "models" / "parent")


def test_what_is_in_work_stays_there(parent: Path, korean: str, tmp_path: Path) -> None:
    """A folder that an export has not made is not its own, whatever it is called."""
    theirs = tmp_path / "work" / "export.unfinished" / "model.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    source = CalibrationSource(korean=(korean,))
    with pytest.raises(OutputError, match=r"expected nothing, or what an unfinished export left"):
        export(parent, tmp_path / "export", recipe=GPTQ_SMALL, calibration=source, work=tmp_path / "work")
    assert theirs.read_text() == "theirs"


def test_an_export_is_not_exported_again(parent: Path, tmp_path: Path) -> None:
    first = export(parent, tmp_path / "first", recipe=NF4).directory
    with pytest.raises(ExportError, match=r"config.json: .*found quant_method bitsandbytes"):
        export(first, tmp_path / "second", recipe=NF4)


def test_the_parent_is_only_read_and_named_by_its_digest(parent: Path, tmp_path: Path) -> None:
    before = record_files(parent)
    for path in parent.iterdir():
        path.chmod(0o444)
    made = open_checkpoint(export(parent, tmp_path / "export", recipe=NF4).directory)
    assert record_files(parent) == before
    assert made.provenance is not None
    assert made.provenance.origin.parent == checkpoint_digest(before)
    assert {name for name in before if name != WEIGHTS and name != "config.json"} == {
        name for name, record in made.provenance.files.items() if before.get(name) == record
    }


def test_the_same_is_made_again_bit_for_bit(parent: Path, tmp_path: Path) -> None:
    made = [export(parent, tmp_path / name, recipe=NF4).directory for name in ("first", "second")]
    assert record_files(made[0]) == record_files(made[1])
    assert (made[0] / "malmoi.json").read_bytes() == (made[1] / "malmoi.json").read_bytes()


def test_shards_stay_shards(copy: Path, tmp_path: Path) -> None:
    whole = export(copy, tmp_path / "whole", recipe=NF4).directory
    tensors = load_file(_without_provenance(copy) / WEIGHTS)
    (copy / WEIGHTS).unlink()
    places = {name: f"model-0000{1 + number % 3}-of-00003.safetensors" for number, name in enumerate(tensors)}
    for file in sorted(set(places.values())):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, copy / file)
    (copy / WEIGHTS_INDEX).write_text(json.dumps({"weight_map": places}))
    sharded = export(copy, tmp_path / "sharded", recipe=NF4).directory
    found = {name: tensor for file in sharded.glob("*.safetensors") for name, tensor in load_file(file).items()}
    expected = load_file(whole / WEIGHTS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    index = json.loads((sharded / WEIGHTS_INDEX).read_text())
    assert index["metadata"]["total_size"] == open_checkpoint(sharded).weight_bytes


def test_a_parent_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    parent = create_tiny_checkpoint(tmp_path / "parent", hidden_size=512, num_hidden_layers=6)
    out = tmp_path / "export"

    def change() -> None:
        while not out.with_name(out.name + PARTIAL_SUFFIX).exists():
            time.sleep(0.001)
        with (parent / "generation_config.json").open("a") as file:
            file.write("\n")

    changing = threading.Thread(target=change)
    changing.start()
    with pytest.raises(ExportError, match=r"generation_config.json: expected that it stays as it is"):
        export(parent, out, recipe=NF4)
    changing.join()
    assert [path.name for path in tmp_path.iterdir()] == ["parent"]


def test_a_full_disk_is_told_and_nothing_left(parent: Path, small_disk: Path) -> None:
    with pytest.raises(OutputError, match="found a full disk"):
        export(parent, small_disk / "export", recipe=NF4)
    assert not list(small_disk.iterdir())


def test_what_is_there_is_replaced_only_if_asked(parent: Path, tmp_path: Path) -> None:
    out = export(parent, tmp_path / "export", recipe=NF4).directory
    with pytest.raises(OutputError, match="--overwrite"):
        export(parent, out, recipe=NF4)
    export(parent, out, recipe=BNB["erkhov-compat"], overwrite=True)
    provenance = open_checkpoint(out).provenance
    assert provenance is not None
    assert provenance.origin.recipe == "bnb-erkhov-compat"


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "quant", *arguments]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("nowhere", "--out", "{out}"), "nowhere: expected a checkpoint directory"),
        (("{parent}", "--out", "{out}", "--recipe", "best"), "--recipe best: expected a quant.recipe.Gptq"),
        (("{parent}", "--out", "{out}", "--method", "bnb", "--bits", "3"), "--method bnb: expected no --bits"),
        (("{parent}", "--out", "{parent}"), "expected a directory apart from what is read"),
        ((".", "--out", "."), "expected a directory apart from what is read"),
        (("{parent}", "--out", "{out}"), "--korean: expected text to calibrate GPTQ on"),
        (("{parent}", "--out", "{out}", "--korean", "no.txt"), "no.txt: expected a file, directory or glob"),
    ],
)
def test_the_command_tells_what_is_wrong_in_a_line(
    parent: Path, tmp_path: Path, arguments: tuple[str, ...], found: str
) -> None:
    done = _run("export", *(word.format(parent=parent, out=tmp_path / "out") for word in arguments))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert found in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, quant.__main__, quant.export, quant.calibration; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_says_before_the_work_what_vllm_will_not_serve(parent: Path, tmp_path: Path) -> None:
    """Nothing long enough to calibrate on ends it there. What GPTQModel said of an earlier run is gone then."""
    (tmp_path / "short.txt").write_text("네\n", encoding="utf-8")
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "out.unfinished.log").write_text("No space left on device\n")
    out = ("--out", str(tmp_path / "out"), "--korean", str(tmp_path / "short.txt"))
    done = _run("export", str(parent), *out, "--bits", "3")
    assert "vLLM 0.32 will not serve it: it refuses bits=3" in done.stderr
    assert done.stderr.index("vLLM") < done.stderr.index("error: ")
    assert done.returncode == 2
    assert {path.name for path in tmp_path.rglob("*")} == {"short.txt", "out.work"}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bnb", "gptq"])
@pytest.mark.parametrize("phase", ["started", "quantizing", "writing"])
def test_killed_it_leaves_nothing_that_opens_and_can_be_run_again(
    tmp_path: Path, korean: str, method: str, phase: str
) -> None:
    parent = create_tiny_checkpoint(tmp_path / "parent", hidden_size=512, num_hidden_layers=6)
    before = record_files(parent)
    out = tmp_path / "export"
    partial, work = out.with_name("export.partial"), out.with_name("export.work")
    gptq = ["--method", "gptq", "--recipe", RECIPE, "--korean", korean]
    arguments = _command(
        "export", str(parent), "--out", str(out), *(gptq if method == "gptq" else ["--method", "bnb"])
    )
    is_time = {
        "started": lambda: True,
        "quantizing": lambda: bool(list(work.glob("*/layers/*"))) if method == "gptq" else partial.exists(),
        "writing": lambda: (partial / WEIGHTS).exists(),
    }[phase]
    kill_alone_when(arguments, is_time)
    assert record_files(parent) == before
    if out.exists() and phase == "writing":  # it was done, a moment before the signal came: then it is whole
        open_checkpoint(out)
        return
    assert not out.exists()
    for leftover in [path for path in tmp_path.rglob("*") if path.is_dir() and path != parent]:
        with pytest.raises(CheckpointError):
            open_checkpoint(leftover)
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    open_checkpoint(out)
    assert {path.name for path in tmp_path.iterdir()} == {"parent", "export"}


@pytest.mark.slow
def test_killed_between_layers_it_goes_on_to_the_same_bits(tmp_path: Path, korean: str) -> None:
    parent = create_tiny_checkpoint(tmp_path / "parent", num_hidden_layers=6, initializer_range=0.1)
    source = CalibrationSource(korean=(korean,))
    whole = export(parent, tmp_path / "whole", recipe=GPTQ_SMALL, calibration=source).directory
    work = tmp_path / "export.work"
    arguments = _command(
        *("export", str(parent), "--out", str(tmp_path / "export"), "--recipe", RECIPE),
        *("--korean", korean, "--resumable"),
    )

    def two_layers_are_kept() -> bool:
        return any(
            len(json.loads(file.read_text())["generations"]) > 1 for file in work.glob("*/state/CURRENT")
        )

    kill_alone_when(arguments, two_layers_are_kept)
    again = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True)
    found = re.search(r"going on at layer (\d)", again.stderr)
    assert found is not None, again.stderr
    assert int(found[1]) > 2
    assert record_files(tmp_path / "export") == record_files(whole)
    assert not work.exists()


@pytest.mark.slow
def test_gptq_on_a_full_disk(parent: Path, small_disk: Path, korean: str) -> None:
    source = CalibrationSource(korean=(korean,))
    with pytest.raises(OutputError, match="found a full disk"):
        export(parent, small_disk / "export", recipe=GPTQ["release"], calibration=source)
    assert not list(small_disk.iterdir())


def test_killed_while_it_is_removed_it_is_still_known(parent: Path, korean: str, tmp_path: Path) -> None:
    """A folder without its identity is nobody's, so that goes last."""
    request = Request(
        checkpoint=parent,
        out=tmp_path / "export",
        recipe=GPTQ_SMALL,
        calibration=CalibrationSource(korean=(korean,)),
        seed=0,
        work=tmp_path / "work",
        is_resumable=False,
        overwrite=False,
    )
    (request.unfinished / "layers").mkdir(parents=True)
    for file in (request.identity, request.unfinished / "logs"):
        file.touch()
    clear_unfinished(request)
    assert list(request.unfinished.iterdir()) == [request.identity]
    remove_unfinished(request)
    assert not request.unfinished.exists()
