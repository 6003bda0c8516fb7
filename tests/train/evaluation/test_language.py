"""Bits per byte against a recomputation that reads a growing prefix, one token at a time, in fp64."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from malmoi.errors import CheckpointError, CorpusError
from malmoi.windows import Window, windows
from tests.support.checkpoints import KOREAN, save_model, save_tokenizer
from tests.support.exports import write_jsonl
from train.evaluation.evaluation import run
from train.evaluation.language import Document, language_reading, passages_of, read_documents
from train.evaluation.local import rows_at_once, window_nats
from train.evaluation.request import Request
from train.evaluation.results import LanguageReading

WIDTH = 16
LENGTHS = (2, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH + WIDTH // 2, WIDTH + WIDTH // 2 + 1, 3 * WIDTH + 5)
"""On both sides of every boundary."""
ENGLISH = ("The capital of Korea is Seoul.", "It was 1997, and the sea was as blue as the sky above it.", "x")


@pytest.fixture(scope="module")
def model(base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base)


def nats_by_hand(model: PreTrainedModel, ids: Sequence[int], width: int) -> float:
    """Each token from all that stands in the window which predicts it."""
    total = 0.0
    for place in range(1, len(ids)):
        begin = 0
        while place - begin >= width:
            begin += width // 2
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:place]])).logits[0, -1].double()
        total -= float(logits.log_softmax(0)[ids[place]])
    return total


def test_windows_lose_what_a_prefix_read_by_hand_does(model: PreTrainedModel) -> None:
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, 384, length).tolist() for length in LENGTHS]
    parts = [list(windows(ids, WIDTH)) for ids in texts]
    found = iter(window_nats(model, [window for part in parts for window in part]))
    for ids, part in zip(texts, parts, strict=True):
        lost = sum(next(found) for _ in part)
        assert lost == pytest.approx(nats_by_hand(model, ids, WIDTH), rel=1e-5)


def measured(checkpoint: Path, files: Sequence[Path], folder: Path) -> LanguageReading:
    request = Request(model=str(checkpoint), english=tuple(map(str, files)))
    found = run(request, folder / "out", folder / "work").language["english"]
    assert found is not None
    return found


def test_a_command_measures_what_is_computed_by_hand(
    base: Path, model: PreTrainedModel, tmp_path: Path
) -> None:
    """The second domain's one text is longer than the model reads at once."""
    long = " ".join([*ENGLISH, *KOREAN] * 5)
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": text} for text in ENGLISH])
    other = write_jsonl(tmp_path / "long.jsonl", [{"text": long}])
    tokenizer = AutoTokenizer.from_pretrained(base)
    encoded = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*ENGLISH, long)}
    assert len(encoded[long]) > 2 * model.config.max_position_embeddings
    found = measured(base, [short, other], tmp_path)
    width = model.config.max_position_embeddings - 1
    nats = [nats_by_hand(model, [tokenizer.bos_token_id, *encoded[text]], width) for text in ENGLISH]
    domain = found.domains["short"]
    assert domain.num_bytes == sum(len(text.encode()) for text in ENGLISH)
    assert domain.bits_per_byte == pytest.approx(sum(nats) / math.log(2) / domain.num_bytes, rel=1e-5)
    assert domain.bits_per_character == pytest.approx(domain.bits_per_byte)  # it is English
    assert domain.tokens_per_word == sum(len(encoded[text]) for text in ENGLISH) / sum(
        len(text.split()) for text in ENGLISH
    )
    assert found.domains["long"].num_tokens == len(encoded[long])
    assert found.domains["long"].bits_per_character > found.domains["long"].bits_per_byte
    items = [
        json.loads(line) for line in (tmp_path / "out/items/language-english.jsonl").read_text().splitlines()
    ]
    assert [item["nats"] for item in items[:3]] == pytest.approx(nats, rel=1e-5)
    assert [item["domain"] for item in items] == ["short"] * 3 + ["long"]
    total = sum(item["nats"] for item in items) / math.log(2)
    assert found.whole.bits_per_byte == pytest.approx(total / sum(item["bytes"] for item in items))


@pytest.mark.slow
def test_a_text_of_several_windows_by_hand(base: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    text = " ".join([*ENGLISH, *KOREAN] * 5)
    file = write_jsonl(tmp_path / "long.jsonl", [{"text": text}])
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    nats = nats_by_hand(model, ids, model.config.max_position_embeddings - 1)
    found = measured(base, [file], tmp_path).whole
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-5)


def test_a_grown_tokenizer_whose_new_tokens_never_occur_changes_nothing(tmp_path: Path) -> None:
    """The same model, with rows to spare, before its tokenizer learns Korean and after."""
    before, after = tmp_path / "before", tmp_path / "after"
    save_tokenizer(before, sentences=ENGLISH, vocab_size=300, template=None)
    save_tokenizer(after, sentences=[*ENGLISH, *KOREAN], vocab_size=384, template=None)
    grow(before, after)
    save_model(after, dtype="float32", initializer_range=0.3)
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(after / file, before / file)
    english = write_jsonl(tmp_path / "english.jsonl", [{"text": " ".join(ENGLISH * 40)}])
    korean = write_jsonl(tmp_path / "korean.jsonl", [{"text": " ".join(KOREAN)}])
    found = [measured(folder, [english], folder.with_name(f"{folder.name}-en")) for folder in (before, after)]
    assert found[0] == found[1]
    assert found[0].whole.num_tokens > 2 * 512, "several windows"
    others = [measured(folder, [korean], folder.with_name(f"{folder.name}-ko")) for folder in (before, after)]
    assert others[1].whole.num_tokens < others[0].whole.num_tokens
    assert others[1].whole.byte_share < others[0].whole.byte_share
    assert others[1].whole.num_bytes == others[0].whole.num_bytes


def grow(base: Path, grown: Path) -> None:
    """Has `grown` keep the base's tokens and merges, and add behind them those of its own that hold Hangul."""
    states = [json.loads((folder / "tokenizer.json").read_text()) for folder in (base, grown)]
    model, other = (state["model"] for state in states)
    vocabulary = dict(model["vocab"])
    for token in sorted(other["vocab"], key=other["vocab"].__getitem__):
        if token not in vocabulary and any("가" <= character <= "힣" for character in token):
            vocabulary[token] = len(vocabulary)
    merges = [pair for pair in other["merges"] if {*pair, "".join(pair)} <= vocabulary.keys()]
    model |= {"vocab": vocabulary, "merges": model["merges"] + [m for m in merges if m not in model["merges"]]}
    assert len(vocabulary) > 300
    (grown / "tokenizer.json").write_text(json.dumps(states[0]))


def test_without_bos_or_eos_the_first_token_is_given(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, sentences=KOREAN, bos=None, template=None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    (behind_eos,) = passages_of([Document(domain="a", text=KOREAN[0])], tokenizer)
    assert behind_eos.ids[0] == tokenizer.eos_token_id
    assert behind_eos.num_characters == len(KOREAN[0])
    tokenizer.eos_token = None
    (alone,) = passages_of([Document(domain="a", text=KOREAN[0])], tokenizer)
    assert list(alone.ids) == list(behind_eos.ids[1:])
    assert tokenizer.decode(alone.ids[1:]) == KOREAN[0][-alone.num_characters :]
    assert alone.num_bytes < behind_eos.num_bytes
    with pytest.raises(CorpusError, match="two tokens or more"):
        passages_of([Document(domain="a", text="x")], tokenizer)


def test_bytes_of_a_character_are_counted_as_parts(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    passages = passages_of([Document(domain="a", text="서뷁책")], tokenizer)
    found = language_reading(passages, [1.0]).whole
    assert found.num_tokens == 5
    assert found.byte_share == 3 / 5


def test_as_many_rows_are_read_at_once_as_fit() -> None:
    assert rows_at_once(10, 384) == 64
    assert rows_at_once(1024, 32_000) == 4
    assert rows_at_once(1 << 20, 1 << 20) == 1


def test_predictions_that_are_no_numbers_are_refused(base: Path) -> None:
    broken = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="predictions that are numbers, found 1 of 1 windows"):
        window_nats(broken, [Window(ids=[1, 2, 3], first=1)])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param("", "an empty file", id="no line"),
        pytest.param('{"text": ""}\n{"text": "  "}\n', r"only empty ones \(2\)", id="an empty text"),
        pytest.param('{"txt": "a"}\n', "no field 'text'; fields: txt", id="a column lacks"),
    ],
)
def test_a_file_without_a_text_is_named(tmp_path: Path, content: str, found: str) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text(content)
    with pytest.raises(CorpusError, match=rf"empty\.jsonl.*found {found}"):
        read_documents("--korean", [str(file)], "text", None)


def test_a_limit_is_of_each_file(tmp_path: Path) -> None:
    for name in "ab":
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name} {number}"} for number in range(5)])
    found = read_documents("--korean", [str(tmp_path)], "text", 2)
    assert [document.text for document in found] == ["a 0", "a 1", "b 0", "b 1"]
