from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.errors import CorpusError
from quant.passages import passage_of, sample
from tests.support.checkpoints import KOREAN, save_tokenizer

DIALOGUE = (Message("user", "수도는?"), Message("assistant", "서울입니다."))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return _tokenizer(tmp_path_factory.mktemp("tokenizer"))


def _tokenizer(folder: Path, **settings: str | None) -> PreTrainedTokenizerBase:
    save_tokenizer(folder, sentences=KOREAN, **settings)  # type: ignore[arg-type]
    return AutoTokenizer.from_pretrained(folder)


def test_text_stands_behind_bos_and_all_of_it_is_predicted(tokenizer: PreTrainedTokenizerBase) -> None:
    passage = passage_of(KOREAN[0], tokenizer)
    assert passage is not None
    assert passage.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(passage.ids[1:]) == KOREAN[0]
    assert passage.num_bytes == len(KOREAN[0].encode())


def test_without_bos_the_first_token_is_given(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, bos=None)
    passage = passage_of(KOREAN[0], tokenizer)
    assert passage is not None
    assert passage.num_bytes == len(tokenizer.decode(passage.ids[1:]).encode()) < len(KOREAN[0].encode())


def test_an_eos_that_doubles_as_bos_is_not_put_in_front(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, bos="</s>")
    passage = passage_of(KOREAN[0], tokenizer)
    assert passage is not None
    assert tokenizer.eos_token_id not in passage.ids


def test_a_dialogue_is_in_the_checkpoints_format_with_its_own_bos(tokenizer: PreTrainedTokenizerBase) -> None:
    passage = passage_of(DIALOGUE, tokenizer)
    messages = [message.as_dict() for message in DIALOGUE]
    assert passage is not None
    assert passage.ids == tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert passage.num_bytes == len(rendered.removeprefix("<s>").encode())


def test_a_sample_ends_at_the_token_that_is_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = sample(KOREAN, tokenizer, num_tokens=10**6)
    num_all = sum(len(passage.ids) - 1 for passage in whole)
    assert sum(passage.num_bytes for passage in whole) == sum(len(text.encode()) for text in KOREAN)
    cut = sample(KOREAN, tokenizer, num_tokens=num_all - 3)
    assert sum(len(passage.ids) - 1 for passage in cut) == num_all - 3
    left_out = tokenizer.decode(whole[-1].ids[-3:])
    assert sum(passage.num_bytes for passage in cut) == sum(len(text.encode()) for text in KOREAN) - len(
        left_out.encode()
    )


@pytest.mark.parametrize("text", ["", "가"])
def test_what_leaves_nothing_to_predict_is_no_passage(tmp_path: Path, text: str) -> None:
    tokenizer = _tokenizer(tmp_path, bos=None)
    found = passage_of(text, tokenizer, max_predicted=0)
    assert found is None
    assert sample([text] * 2, tokenizer, num_tokens=0) == []


def test_a_dialogue_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path, template="{{ raise_exception('System role not supported') }}")
    with pytest.raises(
        CorpusError, match=r"the dialogue of user '수도는\?': .*found System role not supported"
    ):
        passage_of(DIALOGUE, tokenizer)
