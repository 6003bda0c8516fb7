"""The command as a whole: interrupted, of exports, and refused."""

import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from malmoi.errors import CheckpointError, OutputError, RecipeError
from malmoi.provenance import checkpoint_digest, record_files
from tests.support import command
from tests.support.checkpoints import KOREAN
from tests.support.exports import copy_changed, create_export, write_jsonl
from tests.support.quantized import export_gptq
from train.evaluation.evaluation import open_subject, run
from train.evaluation.loading import memory_told
from train.evaluation.request import Request
from train.evaluation.results import read

QUESTIONS = [
    {"messages": [{"role": "user", "content": "수도는?"}, {"role": "assistant", "content": "서울입니다."}]},
    {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]},
]


@pytest.fixture(scope="module")
def korean(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_jsonl(tmp_path_factory.mktemp("texts") / "korean.jsonl", [{"text": t} for t in KOREAN]))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without room for anything."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    (place / "other").write_bytes(bytes(4096))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_killed_it_goes_on_with_the_next_task(base: Path, kobest: Path, korean: str, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out.work"
    arguments = [
        *("evaluate", str(base), "--out", str(out), "--korean", korean),
        *("--benchmarks", "kobest", "--shots", "0", "2", "--data", str(kobest)),
    ]
    command.kill_when("kobest_copa-0.json", work, *arguments)
    assert not out.exists()
    kept = {file.name: file.stat() for file in work.glob("*.json")}
    assert {"language-korean.json", "kobest_boolq-0.json", "kobest_boolq-2.json"} <= kept.keys()
    finished = command.run(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == f"{out / 'results.json'}\n"
    assert "kobest_wic, 2 examples" in finished.stderr
    assert "kobest_boolq, 0 examples" not in finished.stderr
    for name, status in kept.items():
        assert (work / name).stat().st_ino == status.st_ino, "what was finished is not asked again"
    request = Request(model=str(base), korean=(korean,), benchmarks=("kobest",), shots=(0, 2), data=kobest)
    at_once = run(request, tmp_path / "at-once", tmp_path / "at-once.work").to_record()
    in_parts = read(out).to_record()
    assert at_once | {"created": ""} == in_parts | {"created": ""}
    for file in (out / "items").iterdir():
        assert file.read_bytes() == (tmp_path / "at-once" / "items" / file.name).read_bytes()


def test_a_part_of_another_model_is_not_taken_for_its_own(
    base: Path, chat: Path, korean: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    found = [
        run(Request(model=str(model), korean=(korean,)), tmp_path / model.name, work).language["korean"]
        for model in (base, chat)
    ]
    alone = run(Request(model=str(chat), korean=(korean,)), tmp_path / "alone", tmp_path / "other")
    assert found[1] == alone.language["korean"] != found[0]


def test_a_chat_model_is_asked_and_its_prompts_go_through_its_template(
    chat: Path, kobest: Path, tmp_path: Path
) -> None:
    questions = write_jsonl(tmp_path / "questions.jsonl", QUESTIONS)  # type: ignore[arg-type]
    request = Request(
        model=str(chat),
        name="a name",
        benchmarks=("kobest_sentineg",),
        shots=(1,),
        data=kobest,
        is_chat=True,
        questions=(str(questions),),
    )
    found = run(request, tmp_path / "out", tmp_path / "work")
    assert found.name == "a name" and found.model == chat.name
    assert found.digest == checkpoint_digest(record_files(chat))
    assert found.language == {"korean": None, "english": None}
    assert found.chat is not None and found.chat.num_prompts == 2
    assert 0 <= found.chat.eos_rate <= 1
    score = found.benchmarks["kobest_sentineg"][1]
    raw = run(
        Request(model=str(chat), benchmarks=("kobest_sentineg",), shots=(1,), data=kobest),
        tmp_path / "raw",
        tmp_path / "work",
    ).benchmarks["kobest_sentineg"][1]
    assert score.is_chat and not raw.is_chat
    assert score.prompt_digest == raw.prompt_digest, "the questions are the same"


def test_an_export_is_loaded_as_its_users_load_it(chat: Path, korean: str, tmp_path: Path) -> None:
    nf4 = create_export(chat, tmp_path / "nf4")
    found = [
        run(Request(model=str(model), korean=(korean,)), tmp_path / f"{model.name}.out", tmp_path / "work")
        for model in (chat, nf4)
    ]
    bits = [result.language["korean"].whole.bits_per_byte for result in found if result.language["korean"]]
    assert bits[0] != bits[1] == pytest.approx(bits[0], rel=0.2)


@pytest.mark.slow
def test_a_gptq_export_is_loaded_as_its_users_load_it(
    demo_checkpoint: Path, korean: str, kobest: Path, tmp_path: Path
) -> None:
    gptq = export_gptq(demo_checkpoint, tmp_path / "gptq")
    request = {"korean": (korean,), "benchmarks": ("kobest_copa",), "data": kobest}
    found = [
        run(Request(model=str(model), **request), tmp_path / f"{model.name}.out", tmp_path / "work")  # type: ignore[arg-type]
        for model in (demo_checkpoint, gptq)
    ]
    bits = [result.language["korean"].whole.bits_per_byte for result in found if result.language["korean"]]
    assert bits[0] != bits[1] == pytest.approx(bits[0], rel=0.1)


def test_a_model_too_large_for_memory_is_told_before_it_is_loaded(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A file of two tebibytes, of which the disk holds the header alone."""
    large = copy_changed(tiny_checkpoint, tmp_path / "large")
    file = large / "model.safetensors"
    size = struct.unpack("<Q", file.read_bytes()[:8])[0]
    header: dict[str, Any] = json.loads(file.read_bytes()[8 : 8 + size])
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    more = 1 << 41
    header["model.extra.weight"] = {"dtype": "BF16", "shape": [more // 2], "data_offsets": [end, end + more]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + end + more)
    with pytest.raises(
        CheckpointError, match=r"large: expected 20\d\d\.\d GiB of free memory.*found \d+\.\d GiB"
    ):
        open_subject(Request(model=str(large), korean=("any",)))


def test_memory_that_runs_out_all_the_same_is_one_line() -> None:
    with (
        pytest.raises(CheckpointError, match=r"demo: expected memory for .*DefaultCPUAllocator"),
        memory_told("demo"),
    ):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(ValueError, match="another"), memory_told("demo"):
        raise ValueError("another")


def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Path, base: Path, korean: str) -> None:
    with pytest.raises(
        OutputError, match=r"out\.work: expected room for what is done so far, found a full disk"
    ):
        run(Request(model=str(base), korean=(korean,)), small_disk / "out", small_disk / "out.work")
    assert not (small_disk / "out").exists()


def test_weights_that_are_not_in_the_files_are_not_made_up(
    tiny_checkpoint: Path, korean: str, tmp_path: Path
) -> None:
    longer = copy_changed(tiny_checkpoint, tmp_path / "longer", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match="loads whole, found 9 missing keys"):
        run(Request(model=str(longer), korean=(korean,)), tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "something to find out, found nothing"),
        ({"korean": ("x",), "limit": 0}, "--limit: expected 1 or more, found 0"),
        ({"benchmarks": ("kobest",), "shots": (-1,)}, "--shots: expected 0 or more, found -1"),
        ({"benchmarks": ("kobest",), "shots": ()}, "--shots: expected a number of examples, found none"),
        ({"korean": ("x",), "batch_size": 0}, "--batch-size: expected 1 or more, found 0"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        Request(model="any", **asked)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["nothing", "--korean", "KOREAN"], "expected a checkpoint directory, found no such directory"),
        (["BASE", "--korean", "nothing.jsonl"], r"nothing\.jsonl: expected a file, directory or glob"),
        (
            ["BASE", "--prompts-file", "KOREAN"],
            "--prompts-file: expected a chat model, found .*no chat template",
        ),
        (["BASE", "--benchmarks", "kobest", "--chat-template"], "--chat-template: expected a chat model"),
        (["BASE", "--korean", "KOREAN", "--tokenizer", "."], "--tokenizer: expected a model behind an address"),
        (["CHAT", "--prompts-file", "KOREAN"], "expected a dialogue"),
    ],
)
def test_each_mistake_is_one_line(
    options: list[str],
    expected: str,
    base: Path,
    chat: Path,
    korean: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = {"BASE": str(base), "CHAT": str(chat), "KOREAN": korean}
    arguments = ["evaluate", *(named.get(option, option) for option in options), "--out", str(tmp_path / "out")]
    line = command.mistake(arguments, monkeypatch, capsys)
    assert re.search(expected, line), line
    assert not (tmp_path / "out").exists()


def test_what_exists_is_not_replaced_unasked(base: Path, korean: str, tmp_path: Path) -> None:
    request = Request(model=str(base), korean=(korean,))
    run(request, tmp_path / "out", tmp_path / "work")
    with pytest.raises(OutputError, match="--overwrite"):
        run(request, tmp_path / "out", tmp_path / "work")
    shutil.rmtree(tmp_path / "work")
    run(request, tmp_path / "out", tmp_path / "work", overwrite=True)
