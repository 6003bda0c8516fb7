"""`malmoi-train vocabulary` as a user runs it, on a small checkpoint of ours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from malmoi.checkpoint import open_checkpoint
from tests.support.bases import small_base
from tests.support.checkpoints import save_model
from tests.support.command import mistake
from train.demo.conversations import conversations, sentences
from train.vocabulary.growing import tokenizer_json

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of Korean that the project generates."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [*sentences(600, 0), *(message.content for turns in conversations(600, 0) for message in turns)]
    for number in range(3):
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[number::3])
        (folder / f"part{number}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module", params=["sentencepiece", "llama-3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, tied for one family and not for the other."""
    out: Path = tmp_path_factory.mktemp("bases") / request.param
    out.mkdir()
    tokenizer = small_base(request.param)
    (out / "tokenizer.json").write_text(tokenizer_json(tokenizer))
    if tokenizer.piece_model:
        (out / "tokenizer.model").write_bytes(tokenizer.piece_model)
    is_pieces = request.param == "sentencepiece"
    bos, eos = ("<s>", "</s>") if is_pieces else ("<|begin_of_text|>", "<|eot_id|>")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": eos,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    save_model(out, tied=not is_pieces)
    return out


def command(base: Path, corpus: Path, out: Path, *options: str) -> list[str]:
    num_base = small_base(base.name).num_ids
    size = 256 - (num_base + 256) % 64
    common = ["--corpus", str(corpus), "--out", str(out), "--size", str(size), "--threshold", "3"]
    return [sys.executable, "-m", "train", "vocabulary", "--base", str(base), *common, *options]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, arguments)), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def grown(base: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grown") / base.name
    done = run(*command(base, corpus, out))
    assert done.returncode == 0, done.stderr
    assert str(out / "report.md") in done.stdout
    return out


def test_the_result_is_a_checkpoint_without_ghost_rows(base: Path, grown: Path) -> None:
    checkpoint = open_checkpoint(grown)
    assert checkpoint.notes == ()
    assert (
        checkpoint.vocab_size
        == len(AutoTokenizer.from_pretrained(grown))
        == len(set(checkpoint.vocabulary.values()))
    )
    assert checkpoint.vocab_size % 64 == 0
    provenance = checkpoint.provenance
    assert provenance is not None
    assert provenance.origin.recipe == "eeve"
    assert provenance.origin.parent


def test_old_rows_are_the_bases_and_new_ones_eeves(base: Path, grown: Path) -> None:
    before, after = (load_file(path / "model.safetensors") for path in (base, grown))
    old = AutoTokenizer.from_pretrained(base)
    new = AutoTokenizer.from_pretrained(grown)
    num_old = small_base(base.name).num_ids
    for name, tensor in after.items():
        assert torch.equal(tensor[: len(before[name])][:num_old], before[name][:num_old])
    sentinel = len(old.encode("\n", add_special_tokens=False))
    token, text = next(
        (token, text)
        for token in range(num_old, len(new))
        if len((text := new.decode([token])).strip()) > 1 and "\ufffd" not in text
    )
    text = new.backend_tokenizer.decoder.decode(["\n", new.convert_ids_to_tokens(token)]).removeprefix("\n")
    subwords = old.encode("\n" + text, add_special_tokens=False)[sentinel:]
    table = before["model.embed_tokens.weight"]
    expected = table[subwords].float().mean(0).to(table.dtype)
    assert torch.equal(after["model.embed_tokens.weight"][token], expected)
    if "lm_head.weight" in after:
        assert torch.equal(after["lm_head.weight"][token], before["lm_head.weight"][subwords[0]])


def test_the_model_loads_and_korean_is_shorter(base: Path, grown: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(grown)
    assert model.get_input_embeddings().num_embeddings == open_checkpoint(grown).vocab_size
    before, after = (AutoTokenizer.from_pretrained(path) for path in (base, grown))
    text = "대한민국의 수도는 어디인가요?"
    assert len(after(text)["input_ids"]) < 0.6 * len(before(text)["input_ids"])
    assert after.decode(after(text)["input_ids"], skip_special_tokens=True).strip() == text
    assert before("plain English")["input_ids"] == after("plain English")["input_ids"]


def test_the_report_says_it(grown: Path) -> None:
    report = json.loads((grown / "report.json").read_text())
    assert {entry["name"] for entry in report["domains"]} == {"all", "part0", "part1", "part2"}
    assert report["domains"][0]["saving"] > 0.4
    assert all(guarantee["failure"] is None for guarantee in report["guarantees"])
    bits = {loss["input_rows"]: loss["bits_per_byte"] for loss in report["losses"]}
    assert {"subword-mean", "similar", "mean", "random"} <= bits.keys()
    assert (grown / "report_counts.png").read_bytes().startswith(b"\x89PNG")
    assert "## Guarantees" in (grown / "report.md").read_text()


def test_the_review_table_can_be_fed_back(base: Path, corpus: Path, grown: Path, tmp_path: Path) -> None:
    """Its own tokens as --keep give the same tokens; a line of it as --drop takes that token away."""
    table = (grown / "tokens.tsv").read_text().splitlines()
    unwanted = next(line for line in table[1:] if line.split("\t")[0].strip() >= "가" and line.split("\t")[2])
    drop = tmp_path / "drop.tsv"
    drop.write_text(f"{table[0]}\n{unwanted}\n")
    out = tmp_path / "changed"
    work = grown.with_name(f"{grown.name}.work")
    done = run(*command(base, corpus, out, "--drop", str(drop), "--work", str(work)))
    assert done.returncode == 0, done.stderr
    changed = (out / "tokens.tsv").read_text().splitlines()
    assert len(changed) == len(table)
    assert unwanted.split("\t")[0] not in [line.split("\t")[0] for line in changed]


PHASES = (
    "corpus/tasks/completions/0*",
    "corpus/words.parquet*",
    "intermediate-*.model",
    "choice-*.json",
    "vectors-*.bin",
)


@pytest.mark.slow
def test_killed_in_every_phase_the_same_command_ends_in_the_same_bytes(
    base: Path, corpus: Path, grown: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "again", tmp_path / "again.work"
    for pattern in (*(f"{work.name}/{phase}" for phase in PHASES), f"{out.name}.partial/*.safetensors"):
        process = subprocess.Popen(
            command(base, corpus, out),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not any(tmp_path.glob(pattern)) and process.poll() is None:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it was over before {pattern} was seen"
        assert not out.exists()
    done = run(*command(base, corpus, out))
    assert done.returncode == 0, done.stderr
    names = sorted(file.name for file in grown.iterdir())
    assert sorted(file.name for file in out.iterdir()) == names
    assert [name for name in names if (out / name).read_bytes() != (grown / name).read_bytes()] == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--corpus", "nowhere.jsonl"], "nothing there"),
        (["--size", "7"], "a multiple of 64"),
        (["--memory", "much"], "--memory"),
        (["--memory", "500MB"], "at least 2GB"),
        (["--keep", "nowhere.txt"], "nowhere.txt"),
        (["--base", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    corpus: Path,
    tmp_path: Path,
    options: list[str],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, base = tmp_path / "out", tmp_path / "sentencepiece"
    base.mkdir()
    (base / "tokenizer.json").write_text(tokenizer_json(small_base("sentencepiece")))
    asked = command(base, corpus, out)[3:]
    assert found in mistake([*asked, *options], monkeypatch, capsys)
    assert not out.exists()
