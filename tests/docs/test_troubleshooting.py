"""Every message of docs/troubleshooting.md is what a command says, and every way to it here is in the page."""

import json
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import pytest
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform

import quant.__main__
import server.__main__
import server.launch
import server.machine
import train.__main__
from malmoi import signing
from malmoi.files import create_directory
from tests.support.bases import small_base
from tests.support.checkpoints import create_grown_checkpoint, create_tiny_checkpoint
from tests.support.exports import write_jsonl
from tests.support.releases import create_bnb_export, good_fidelity, write_keys, write_report
from train.vocabulary.growing import tokenizer_json

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
ANYTHING = "…"
UNKNOWN = "Unrecognized options"
"""tyro's, in a box; the others are lines of ours."""
MAINS = {"train": train.__main__.main, "quant": quant.__main__.main, "serve": server.__main__.main}


@dataclass
class Place:
    """Where a mistake is made: a folder of its own, and checkpoints that are not to be changed."""

    folder: Path
    tiny: Path
    grown: Path
    open: ExitStack = field(default_factory=ExitStack)

    def changed(self, file: str, change: Callable[[Path], object]) -> Path:
        """A copy of the tiny checkpoint with one file changed."""
        copy = self.folder / "changed"
        shutil.copytree(self.tiny, copy)
        change(copy / file)
        return copy

    def texts(self) -> Path:
        return write_jsonl(
            self.folder / "texts.jsonl", [{"text": f"나는 {num}번 학교에 갔습니다."} for num in range(40)]
        )

    def dialogues(self) -> Path:
        rows: list[dict[str, object]] = [{"instruction": f"{num}?", "output": f"{num}."} for num in range(40)]
        return write_jsonl(self.folder / "dialogues.jsonl", rows)


def edited_config(place: Place, name: str, value: object) -> Path:
    def edit(file: Path) -> object:
        return file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))

    return place.changed("config.json", edit)


def a_new_directory(place: Place) -> str:
    return f"train demo --out {place.folder}"


def apart_from_what_is_read(place: Place) -> str:
    return f"train data --dialogues {place.dialogues()} --out {place.folder} --overwrite"


def that_can_be_written(place: Place) -> str:
    return f"train demo --out {place.texts()}/demo"


def no_other_run(place: Place) -> str:
    place.open.enter_context(create_directory(place.folder / "out"))
    return f"train data --dialogues {place.dialogues()} --out {place.folder}/out"


def unknown_option(place: Place) -> str:
    return f"train demo --out {place.folder}/demo --sed 1"


def a_checkpoint_directory(place: Place) -> str:
    return f"quant export {place.tiny}-chat --out {place.folder}/out --method bnb"


def the_file(place: Place) -> str:
    return f"quant export {place.changed('config.json', Path.unlink)} --out {place.folder}/out --method bnb"


def header_says(place: Place) -> str:
    changed = place.changed("model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-1000]))
    return f"quant export {changed} --out {place.folder}/out --method bnb"


def malmoi_records(place: Place) -> str:
    changed = place.changed("chat_template.jinja", lambda file: file.write_text("{{ messages }}"))
    return f"serve {changed}"


def remote_code(place: Place) -> str:
    return f"serve {edited_config(place, 'auto_map', {'AutoModel': 'modeling.Other'})}"


def safetensors(place: Place) -> str:
    changed = place.changed("model.safetensors", lambda file: file.rename(file.with_name("pytorch_model.bin")))
    return f"serve {changed}"


def rows_of_embeddings(place: Place) -> str:
    return f"serve {edited_config(place, 'vocab_size', 100)}"


def field_of_text(place: Place) -> str:
    steps = "new-tokens mixture curriculum"
    return f"train corpus --corpus {place.dialogues()} --out {place.folder}/out --without {steps}"


def file_directory_or_glob(place: Place) -> str:
    return f"train vocabulary --base {place.tiny} --corpus {place.folder}/none.txt --out {place.folder}/out"


def bad_row(place: Place) -> str:
    file = write_jsonl(place.folder / "rows.jsonl", [{"instruction": "1?", "output": ""}])
    return f"train data --dialogues {file} --out {place.folder}/out"


def rows_not_text(place: Place) -> str:
    file = place.folder / "korean.txt"
    file.write_text("하나\n")
    return f"train data --dialogues {file} --out {place.folder}/out"


def a_recipe(place: Place) -> str:
    return f"train sft --base {place.tiny} --data {place.dialogues()} --out {place.folder}/out --recipe eeve"


def grown_vocabulary(place: Place) -> str:
    out, recipe = place.folder / "out", "train.recipes.demo:STAGES"
    return f"train pretrain --base {place.tiny} --corpus {place.texts()} --out {out} --recipe {recipe}"


def english_text(place: Place) -> str:
    long = create_grown_checkpoint(place.folder / "long", max_position_embeddings=8192)
    return f"train pretrain --base {long} --corpus {place.texts()} --out {place.folder}/out --recipe tedllm"


def a_step_in_each(place: Place) -> str:
    return (
        f"train pretrain --base {place.grown} --corpus {place.texts()} --out {place.folder}/out --tokens 1000"
    )


def base_that_reads(place: Place) -> str:
    return f"train pretrain --base {place.grown} --corpus {place.texts()} --out {place.folder}/out"


def divisor(place: Place) -> str:
    return f"train sft --base {place.tiny} --data {place.dialogues()} --out {place.folder}/out --rows-at-once 5"


def grown_by(place: Place, size: int) -> str:
    base = place.folder / "tokenizer.json"
    base.write_text(tokenizer_json(small_base("llama-3")), encoding="utf-8")
    return f"train vocabulary --base {base} --corpus {place.texts()} --out {place.folder}/out --size {size}"


def multiple_of_64(place: Place) -> str:
    return grown_by(place, 100)


def tokens_that_occur(place: Place) -> str:
    return grown_by(place, 64 * 100 - small_base("llama-3").num_ids)


def a_number(place: Place) -> str:
    (place.folder / "hot.py").write_text(
        "from dataclasses import replace\n"
        "from tests.support.recipes import TINY_SFT\n"
        "HOT = replace(TINY_SFT, method='full', learning_rate=1e30)\n"
    )
    return f"train sft --base {place.tiny} --data {place.dialogues()} --out {place.folder}/out --recipe hot:HOT"


def chat_model(place: Place) -> str:
    preferences = write_jsonl(place.folder / "p.jsonl", [{"prompt": "1?", "chosen": "1.", "rejected": "2."}])
    return f"train dpo --base {place.grown} --data {preferences} --out {place.folder}/out"


def something_to_find_out(place: Place) -> str:
    return f"train evaluate {place.tiny} --out {place.folder}/out"


def server_that_answers(place: Place) -> str:
    return f"train evaluate http://127.0.0.1:9 --korean {place.texts()} --out {place.folder}/out"


def text_to_calibrate_on(place: Place) -> str:
    return f"quant export {place.tiny} --out {place.folder}/out"


def weights_that_are_not_quantized(place: Place) -> str:
    changed = edited_config(place, "quantization_config", {"quant_method": "gptq", "bits": 4})
    (changed / "malmoi.json").unlink()
    return f"quant export {changed} --out {place.folder}/out --method bnb"


def bytes_on_record(place: Place) -> str:
    return f"serve {edited_config(place, 'torch_dtype', 'float16')}"


def gptq_alone(place: Place) -> str:
    return f"quant export {place.tiny} --out {place.folder}/out --method bnb --korean {place.texts()}"


def as_a_check_writes_them(place: Place) -> str:
    return f"quant release {place.tiny} --parent {place.tiny} --out {place.folder}/out"


def width_in_multiples(place: Place) -> str:
    odd = create_tiny_checkpoint(place.folder / "odd", intermediate_size=200)
    return f"quant export {odd} --out {place.folder}/out --korean {place.texts()}"


def thresholds_of_the_gate(place: Place) -> str:
    text = "Apache License\nVersion 2.0, January 2004"
    parent = place.changed("LICENSE", lambda file: file.write_text(text))
    made = create_bnb_export(parent, place.folder / "made")
    fidelity = replace(good_fidelity(parent, made), answers=None)
    report = write_report(place.folder / "made.fidelity", fidelity)
    return f"quant release {made} --parent {parent} --out {place.folder}/out --fidelity {report}"


def a_directory_or_hub_id(place: Place) -> str:
    return "serve nobody/nothing"


def an_address(place: Place) -> str:
    taken = place.open.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"serve {place.tiny} --port {taken.getsockname()[1]}"


def keys_for_others(place: Place) -> str:
    return f"serve {place.tiny} --host 0.0.0.0"


def a_signed_release(place: Place) -> str:
    return f"serve {place.tiny} --verify-key {place.texts()}"


def what_was_signed(place: Place) -> str:
    private, public = write_keys(place.folder / "keys")
    changed = place.changed("config.json", lambda file: signing.open_signer(private)(file.parent))
    (changed / "config.json").write_text("{}")
    return f"serve {changed} --verify-key {public}"


def free_memory(place: Place) -> str:
    changed = edited_config(place, "max_position_embeddings", 10**9)
    (changed / "malmoi.json").unlink()
    return f"serve {changed} --port 0"


def shared_memory(place: Place) -> str:
    place.open.enter_context(patch.object(server.machine, "SHARED_MEMORY_BYTES", 1 << 60))
    return f"serve {place.tiny} --port 0"


def no_gpu(place: Place) -> str:
    place.open.enter_context(patch.object(server.launch, "is_cpu_build", lambda: False))
    place.open.enter_context(patch.object(vllm.platforms, "current_platform", UnspecifiedPlatform()))
    return f"serve {place.tiny}"


def options_of_vllm(place: Place) -> str:
    return f"serve {place.tiny} --port 0 -- --no-such-option"


def file_of_keys(place: Place) -> str:
    return f"serve {place.tiny} --keys {place.folder}/keys.json"


MISTAKES: Mapping[str, Callable[[Place], str]] = {
    UNKNOWN: unknown_option,
    "a new directory": a_new_directory,
    "apart from what is read": apart_from_what_is_read,
    "a place that can be written": that_can_be_written,
    "no other run": no_other_run,
    "--recipe …": a_recipe,
    "beside it there are": a_checkpoint_directory,
    "expected the file": the_file,
    "as its header says": header_says,
    "pickled weights": safetensors,
    "no remote code": remote_code,
    "as vocab_size": rows_of_embeddings,
    "as locked in": malmoi_records,
    "bytes malmoi.json records": bytes_on_record,
    "or hub:NAME": file_directory_or_glob,
    "in the field 'text'": field_of_text,
    "expected a dialogue": bad_row,
    "rows: JSON lines": rows_not_text,
    "a multiple of 64": multiple_of_64,
    "tokens that occur": tokens_that_occur,
    "a grown vocabulary": grown_vocabulary,
    "a base that reads": base_that_reads,
    "--english:": english_text,
    "--tokens:": a_step_in_each,
    "a divisor of": divisor,
    "that is a number": a_number,
    "a chat model": chat_model,
    "something to find out": something_to_find_out,
    "a server that answers": server_that_answers,
    "--korean: expected text to calibrate": text_to_calibrate_on,
    "--method bnb: expected no": gptq_alone,
    "weights that are not quantized": weights_that_are_not_quantized,
    "as a check writes them": as_a_check_writes_them,
    "width in multiples": width_in_multiples,
    "thresholds of the gate": thresholds_of_the_gate,
    "a Hugging Face Hub id": a_directory_or_hub_id,
    "an address to listen on": an_address,
    "--host …": keys_for_others,
    "a file of keys": file_of_keys,
    "a signed release": a_signed_release,
    "what was signed": what_was_signed,
    "of free memory": free_memory,
    "/dev/shm": shared_memory,
    "expected a GPU": no_gpu,
    "options after --": options_of_vllm,
}
"""By words that one heading alone has."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return create_tiny_checkpoint(folder / "tiny"), create_grown_checkpoint(folder / "grown")


def test_each_heading_has_one_mistake_that_leads_to_it() -> None:
    leading = [[words for words in MISTAKES if words in heading] for heading in HEADINGS]
    assert [len(words) for words in leading] == [1] * len(MISTAKES)


@pytest.mark.usefixtures("same_environment")
@pytest.mark.parametrize("heading", HEADINGS)
def test_the_message_is_what_the_command_says(
    heading: str,
    checkpoints: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (make,) = (make for words, make in MISTAKES.items() if words in heading)
    place = Place(tmp_path, *checkpoints)
    monkeypatch.syspath_prepend(str(tmp_path))
    program, *arguments = make(place).split()
    monkeypatch.setattr(sys, "argv", [f"malmoi-{program}", *arguments])
    with place.open, pytest.raises(SystemExit) as ended:
        MAINS[program]()
    assert ended.value.code == 2
    pattern = re.escape(heading).replace(ANYTHING, ".+")
    said = capsys.readouterr().err
    assert re.search(pattern if heading == UNKNOWN else f"^error: {pattern}$", said, re.MULTILINE)
