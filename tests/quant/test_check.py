"""The whole check on a small export, and what it refuses before any work is done."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from malmoi.errors import CheckpointError, CorpusError, MalmoiError, OutputError, RecipeError
from malmoi.provenance import PROVENANCE_FILE, checkpoint_digest, file_digest, record_files
from quant import check
from quant.fidelity import Fidelity, read
from tests.support.checkpoints import KOREAN, create_grown_checkpoint, save_model, save_tokenizer
from tests.support.exports import copy_changed, create_export, create_grown_chat, write_jsonl

ENGLISH = ("The capital of Korea is Seoul.", "It rains in the morning, and we read books.")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A parent and its export."""
    folder = tmp_path_factory.mktemp("pair")
    parent = create_grown_chat(folder / "parent")
    return parent, create_export(parent, folder / "export")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that a check takes."""
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "korean.jsonl", [{"text": text} for text in KOREAN])
    write_jsonl(folder / "english.jsonl", [{"text": text} for text in ENGLISH])
    asked = {"role": "user", "content": "수도는?"}, {"role": "assistant", "content": "서울입니다."}
    write_jsonl(folder / "prompts.jsonl", [{"messages": list(asked)}])
    (folder / "kobest").mkdir()
    with gzip.open(folder / "kobest" / "SentiNeg.test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"Text": text, "Label": label}) + "\n"
            for text, label in (("좋아요", "1"), ("별로네요", "0"))
        )
    return folder


@pytest.fixture(scope="module")
def checked(
    pair: tuple[Path, Path], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Fidelity]:
    """Everything but English and the server."""
    out = tmp_path_factory.mktemp("checked") / "export.fidelity"
    found = check.run(
        pair[1],
        parent=pair[0],
        korean=[str(data / "korean.jsonl")],
        prompts=[str(data / "prompts.jsonl")],
        kobest=data / "kobest",
        out=out,
    )
    return out, found


def test_numbers_are_there_and_belong_to_this_pair(
    checked: tuple[Path, Fidelity], pair: tuple[Path, Path]
) -> None:
    found = checked[1]
    assert found.parent == checkpoint_digest(record_files(pair[0]))
    assert found.export == checkpoint_digest(record_files(pair[1]))
    assert found.method == "bitsandbytes"
    assert found.settings["bnb_4bit_quant_type"] == "nf4"
    korean = found.text["korean"]
    assert korean is not None and found.text["english"] is None
    assert korean.num_bytes == sum(len(text.encode()) for text in KOREAN)
    assert 0 < korean.kl_mean < korean.kl_p99
    assert korean.export.bits_per_byte != korean.parent.bits_per_byte
    assert korean.by_token["new"] is not None
    assert korean.num_tokens == sum(group.num_tokens for group in korean.by_token.values() if group)
    assert found.answers is not None and found.answers.num_prompts == 1
    assert found.kobest is not None and set(found.kobest) == {"sentineg"}
    assert found.kobest["sentineg"].num == 2
    assert found.speed is None
    assert set(found.data) == {"korean", "prompts", "kobest_sentineg"}
    assert "--kobest" in found.command and "--serve" not in found.command
    assert "/" not in found.command, "it is published with the card"


def test_sizes_are_of_the_files_and_of_a_process_of_its_own(
    checked: tuple[Path, Fidelity], pair: tuple[Path, Path]
) -> None:
    size = checked[1].size
    assert size.parent_disk_bytes == sum(file.stat().st_size for file in pair[0].iterdir())
    assert size.export_disk_bytes < size.parent_disk_bytes
    for memory in (size.parent_memory_bytes, size.export_memory_bytes):
        assert open_checkpoint(pair[1]).weight_bytes < memory < 1 << 30


def test_files_hold_the_same_numbers(checked: tuple[Path, Fidelity]) -> None:
    out, found = checked
    assert sorted(file.name for file in out.iterdir()) == ["fidelity.json", "fidelity.md", "fidelity.png"]
    assert read(out / "fidelity.json") == found
    page = (out / "fidelity.md").read_text()
    korean = found.text["korean"]
    assert korean is not None
    assert f"{korean.parent.bits_per_byte:.4f} → {korean.export.bits_per_byte:.4f}" in page
    assert f"{korean.kl_mean:.5f} | {korean.kl_p99:.5f} | {korean.top1_agreement:.2%}" in page
    assert page.count("\n") < 60
    assert (out / "fidelity.png").read_bytes().startswith(b"\x89PNG")


def test_texts_that_it_was_calibrated_on_are_refused(
    pair: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    parent, export = pair
    exported = tmp_path / "export"
    shutil.copytree(export, exported)
    record = json.loads((exported / PROVENANCE_FILE).read_text())
    record["origin"]["data"] = {"korean/korean.jsonl": file_digest(data / "korean.jsonl")}
    (exported / PROVENANCE_FILE).write_text(json.dumps(record))
    for korean, prompts in (("korean", "prompts"), ("prompts", "korean")):
        with pytest.raises(
            CorpusError, match=r"korean\.jsonl: expected texts that export was not calibrated on"
        ):
            check.run(
                exported,
                parent=parent,
                korean=(str(data / f"{korean}.jsonl"),),
                prompts=(str(data / f"{prompts}.jsonl"),),
                out=tmp_path / "out",
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_was_not_measured_is_null(pair: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fidelity"
    files = {name: [str(data / f"{name}.jsonl")] for name in ("korean", "english")}
    check.run(pair[1], parent=pair[0], out=out, num_tokens=7, **files)  # type: ignore[arg-type]
    record = json.loads((out / "fidelity.json").read_text())
    assert [record["text"][language]["num_tokens"] for language in ("korean", "english")] == [7, 7]
    assert [record[name] for name in ("answers", "kobest", "speed")] == [None] * 3
    assert read(out / "fidelity.json").answers is None


def _unquantized(pair: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    return pair[0], pair[0]


def _of_another_parent(pair: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    return create_grown_chat(folder / "other", initializer_range=0.1), pair[1]


def _with_another_tokenizer(pair: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    export = copy_changed(pair[1], folder / "export")
    tokenizer = json.loads((export / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["▁"], vocabulary["이"] = vocabulary["이"], vocabulary["▁"]
    (export / "tokenizer.json").write_text(json.dumps(tokenizer))
    return pair[0], export


def _with_another_template(pair: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    export = copy_changed(pair[1], folder / "export")
    (export / "chat_template.jinja").write_text("{{ messages }}")
    return pair[0], export


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (_unquantized, "expected quantization_config"),
        (_of_another_parent, "expected an export of"),
        (_with_another_tokenizer, "expected the tokenizer of"),
        (_with_another_template, "expected the chat template of"),
    ],
)
def test_an_export_that_is_not_this_parents_is_refused(
    made: Callable[[tuple[Path, Path], Path], tuple[Path, Path]],
    reason: str,
    pair: tuple[Path, Path],
    data: Path,
    tmp_path: Path,
) -> None:
    parent, export = made(pair, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=reason):
        check.run(export, parent=parent, korean=[str(data / "korean.jsonl")], out=out)
    assert not out.exists() and not out.with_name("out.partial").exists()


def test_mistakes_are_told_before_anything_is_loaded(
    pair: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    korean, out = [str(data / "korean.jsonl")], tmp_path / "out"

    def mistake(kind: type[MalmoiError], reason: str, **changed: object) -> None:
        arguments = {"export": pair[1], "parent": pair[0], "korean": korean, "out": out} | changed
        with pytest.raises(kind, match=reason):
            check.run(**arguments)  # type: ignore[arg-type]

    mistake(RecipeError, "--korean", korean=[])
    mistake(RecipeError, "--num-tokens", num_tokens=0)
    mistake(CorpusError, "--english", english=[str(empty)])
    mistake(CorpusError, "KoBEST", kobest=tmp_path)
    mistake(OutputError, "apart from what is read", out=data, overwrite=True)
    out.mkdir()
    mistake(OutputError, "a new directory")


def test_data_that_hold_nothing_to_ask_are_told_before_anything_is_loaded(
    pair: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "no_bos"
    save_tokenizer(parent, sentences=KOREAN, bos=None)
    save_model(parent)
    export = copy_changed(parent, tmp_path / "export", quantization_config={"quant_method": "bitsandbytes"})
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": "가"}])
    answer = write_jsonl(tmp_path / "answer.jsonl", [{"messages": [{"role": "assistant", "content": "네."}]}])
    with gzip.open(tmp_path / "SentiNeg.test.jsonl.gz", "wb"):
        pass
    korean = [str(data / "korean.jsonl")]
    for found, of, files in (
        ("--korean: expected texts of two tokens", (parent, export), {"korean": [str(one)]}),
        ("--prompts: expected questions", pair, {"korean": korean, "prompts": [str(answer)]}),
        ("--kobest: sentineg: expected questions", pair, {"korean": korean, "kobest": tmp_path}),
    ):
        with pytest.raises(CorpusError, match=found):
            check.run(of[1], parent=of[0], out=tmp_path / "out", **files)


def test_prompts_need_a_chat_checkpoint(tmp_path: Path, data: Path) -> None:
    parent = create_grown_checkpoint(tmp_path / "base")
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    export = copy_changed(parent, tmp_path / "export", quantization_config=quantization)
    files = {name: [str(data / f"{name}.jsonl")] for name in ("korean", "prompts")}
    with pytest.raises(RecipeError, match="no chat template"):
        check.run(export, parent=parent, out=tmp_path / "out", **files)  # type: ignore[arg-type]


def test_a_record_that_cannot_be_read_is_named(checked: tuple[Path, Fidelity], tmp_path: Path) -> None:
    file = tmp_path / "fidelity.json"
    shutil.copy(checked[0] / "fidelity.json", file)
    file.write_text(file.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CheckpointError, match="format 1"):
        read(file)
    file.write_text("{}")
    with pytest.raises(CheckpointError, match=r"fidelity\.json.*KeyError"):
        read(file)
