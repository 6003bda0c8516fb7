import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.checkpoint import open_checkpoint
from malmoi.errors import OutputError, RecipeError
from train.demo.conversations import conversations, sentences
from train.demo.course import passed
from train.demo.examination import Report
from train.generation import Answerer
from train.packing import IGNORED, Example, encode_conversations, encode_sentences, pack
from train.recipe import Recipe, Vocabulary
from train.recipes.demo import DEMO
from train.tokenizer import train_tokenizer
from train.training import train_chat_model

TINY: Recipe = replace(
    DEMO,
    name="tiny",
    architecture=replace(DEMO.architecture, hidden_size=128, intermediate_size=128, num_layers=2, num_heads=2),
    vocabulary=Vocabulary(size=1024),
    schedule=replace(DEMO.schedule, rows_per_step=8),
)


def train_tiny(out: Path, *, seed: int = 0, **options: object) -> Path:
    train_chat_model(TINY, conversations(300, 0), sentences(200, 0), out, seed=seed, **options)  # type: ignore[arg-type]
    return out


def digests(directory: Path) -> Mapping[str, str]:
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "malmoi.json"} <= set(found)
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tmp_path_factory.mktemp("training") / "tiny")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    texts = [message.content for turns in conversations(500, 0) for message in turns]
    return train_tokenizer([*texts, *sentences(500, 0)], 1024, 1024)


def test_the_checkpoint_keeps_the_contract(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    assert checkpoint.notes == ()
    assert checkpoint.config["dtype"] == "bfloat16"
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert checkpoint.config["tie_word_embeddings"] is False
    assert checkpoint.generation_config["eos_token_id"] == 2
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"BF16"}
    assert checkpoint.provenance is not None
    assert checkpoint.provenance.origin.recipe == "tiny"
    assert checkpoint.provenance.origin.stage == "chat"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny: Path, tmp_path: Path) -> None:
    assert digests(train_tiny(tmp_path / "again")) == digests(tiny)
    other = digests(train_tiny(tmp_path / "other", seed=1))
    assert other["model.safetensors"] != digests(tiny)["model.safetensors"]


def test_training_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    train_tiny(tmp_path / "tiny")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_what_is_measured_is_recorded(tmp_path: Path) -> None:
    def examine(directory: Path) -> Mapping[str, float]:
        model = AutoModelForCausalLM.from_pretrained(directory)
        return {"parameters": float(model.num_parameters())}

    recorded = open_checkpoint(train_tiny(tmp_path / "tiny", examine=examine)).provenance
    assert recorded is not None
    assert recorded.origin.metrics["parameters"] == 2 * 1024 * 128 + 2 * (7 * 128 * 128 + 2 * 128) + 128


def test_a_failed_examination_leaves_nothing(tmp_path: Path) -> None:
    def examine(_: Path) -> Mapping[str, float]:
        report = Report({"addition": 10}, {"addition": 8})
        return passed(report, seed=0)

    with pytest.raises(RecipeError, match=r"80\.0%"):
        train_tiny(tmp_path / "tiny", examine=examine)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept(tiny: Path) -> None:
    before = digests(tiny)
    with pytest.raises(OutputError, match="--overwrite"):
        train_tiny(tiny)
    assert digests(tiny) == before


def test_a_report_becomes_metrics() -> None:
    report = Report({"addition": 10, "date": 10}, {"addition": 9, "date": 10})
    assert passed(report, seed=0) == {
        "held_out_accuracy": 0.95,
        "held_out_accuracy/addition": 0.9,
        "held_out_accuracy/date": 1.0,
    }


def learnt_texts(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """The runs of labels that are learnt, decoded."""
    runs: list[list[int]] = [[]]
    for label in example.labels:
        if label != IGNORED:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [str(tokenizer.decode(run)) for run in runs if run]


def test_answers_and_their_eos_are_learnt_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = list(conversations(200, 3))
    examples = list(encode_conversations(tokenizer, turns))
    assert len(examples) == len(turns) == 200
    for conversation, example in zip(turns, examples, strict=True):
        answers = [message.content for message in conversation if message.role == "assistant"]
        assert learnt_texts(tokenizer, example) == [f"{answer}</s>" for answer in answers]
        assert all(
            label in (IGNORED, token) for label, token in zip(example.labels, example.input_ids, strict=True)
        )


def test_a_sentence_is_learnt_to_its_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = encode_sentences(tokenizer, ["학생은 책을 읽습니다."])
    assert tokenizer.decode(example.input_ids) == "<s>학생은 책을 읽습니다.</s>"
    assert learnt_texts(tokenizer, example) == ["학생은 책을 읽습니다.</s>"]


def test_rows_hold_every_example_once() -> None:
    lengths = [1 + (7 * number) % 40 for number in range(300)]
    examples = [Example([number] * length, [number] * length) for number, length in enumerate(lengths)]
    rows = pack(examples, 64, padding_id=-1)
    assert all(len(row.input_ids) == len(row.labels) == len(row.position_ids) == 64 for row in rows)
    found = sorted(token for row in rows for token in row.input_ids if token != -1)
    assert found == sorted(number for number, length in enumerate(lengths) for _ in range(length))
    assert len(rows) <= 1.1 * sum(lengths) / 64 + 1
    starts = [row.position_ids.count(0) for row in rows]
    assert sum(starts) == len(examples) + sum(-1 in row.input_ids for row in rows)


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(RecipeError, match="one of 65"):
        pack([Example([0] * 65, [0] * 65)], 64, padding_id=0)


def test_examples_in_a_row_do_not_see_each_other(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    first, second = list(range(300, 320)), list(range(400, 430))
    (row,) = pack([Example(first, first), Example(second, second)], 64, padding_id=0)
    with torch.inference_mode():
        alone = model(torch.tensor([second])).logits[0]  # (tokens, vocab)
        packed = model(
            torch.tensor([row.input_ids]), position_ids=torch.tensor([row.position_ids]), use_cache=False
        ).logits[0]  # with a cache transformers does not look for packed examples
    assert torch.allclose(packed[20:50], alone, atol=1e-5)


def test_an_answer_does_not_depend_on_the_others_asked_with_it(tiny: Path) -> None:
    answerer = Answerer.load(tiny)
    questions: Sequence[Sequence[Message]] = [
        [Message("user", "37 더하기 52는 얼마인가요?")],
        [Message("user", "안녕!"), Message("assistant", "안녕하세요!"), Message("user", "네 이름은 무엇이니?")],
    ]
    together = answerer(questions, max_new_tokens=4)
    assert together == [answerer([question], max_new_tokens=4)[0] for question in questions]
    assert all("###" not in answer for answer in together)


def test_the_saved_tokenizer_adds_no_bos_of_its_own_to_a_rendered_prompt(tiny: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    encoded = tokenizer.apply_chat_template([{"role": "user", "content": "안녕!"}], add_generation_prompt=True)
    assert encoded["input_ids"].count(tokenizer.bos_token_id) == 1
