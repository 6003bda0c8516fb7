import unicodedata
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from malmoi import chat
from malmoi.errors import RecipeError
from train.demo.conversations import conversations, sentences
from train.tokenizer import train_tokenizer

SIZE = 1024


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    texts = [message.content for turns in conversations(1500, 0) for message in turns]
    train_tokenizer([*texts, *sentences(500, 0)], SIZE, 1024).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def tokenizer(saved: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(saved)


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요, 37 더하기 52는 얼마인가요?",
        "  two spaces, English, and a tab\t",
        "첫 줄\n\n둘째 줄\n",
        "똠방각하 펲시콜라 🙂 👩‍👩‍👧 中文",
        " 앞뒤 공백 ",
        "",
    ],
)
def test_a_text_comes_back_as_it_was(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.unk_token_id not in token_ids
    assert tokenizer.decode(token_ids) == text


def test_there_are_as_many_tokens_as_asked_for(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.is_fast
    assert len(tokenizer) == SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(SIZE))
    first = ["<unk>", "<s>", "</s>", "<0x00>"]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == first
    assert tokenizer.convert_ids_to_tokens(258) == "<0xFF>"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)


def test_digits_and_line_ends_are_tokens_of_their_own(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("2026\n\n1, 12", add_special_tokens=False))
    assert tokens[:7] == ["2", "0", "2", "6", "\n", "\n", "1"]
    assert tokens[-3:] == ["▁", "1", "2"]
    assert not [
        token
        for token in tokenizer.get_vocab()
        if len(token) > 1 and token[:3] != "<0x" and any(letter.isdecimal() for letter in token)
    ]


def test_the_text_of_a_byte_token_is_no_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    token_ids = tokenizer.encode("<0x41>", add_special_tokens=False)
    assert tokenizer.decode(token_ids) == "<0x41>"


def test_the_saved_tokenizer_renders_korae(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [message.as_dict() for message in chat.GOLDEN_CONVERSATION]
    expected = chat.render(chat.GOLDEN_CONVERSATION, eos="</s>", bos="<s>", add_generation_prompt=True)
    assert tokenizer.chat_template == chat.TEMPLATE
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected
    token_ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert token_ids.count(1) == 1
    assert token_ids.count(2) == 4
    assert tokenizer.decode(token_ids) == expected


def test_too_little_text_is_refused() -> None:
    with pytest.raises(RecipeError, match="2048 tokens"):
        train_tokenizer(["짧은 글"], 2048, 1024)
