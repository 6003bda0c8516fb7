from pathlib import Path

import pytest

from tests.support.bases import small_base
from train.corpus.counting import count_corpus
from train.corpus.shards import find_shards
from train.demo.conversations import conversations, sentences
from train.vocabulary.base import Base
from train.vocabulary.intermediate import read_tokens, train_intermediate
from train.vocabulary.pretokens import Pretokens, count_pretokens


@pytest.fixture(scope="package")
def texts() -> list[str]:
    """Korean that the project generates, with English, code and odd spacing between."""
    korean = [*sentences(300, 0)]
    korean += [message.content for turns in conversations(300, 0) for message in turns]
    odd = [
        "  두  칸 ",
        "줄\n바꿈\n\n  들여쓰기",
        "API는 (한국어) 문서,입니다.",
        "ㅋㅋㅋㅋㅋ ㅠㅠ",
        "plain English",
        "\t탭",
    ]
    return [*korean, *odd * 3]


@pytest.fixture(scope="package")
def table(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their word table."""
    import json

    folder = tmp_path_factory.mktemp("corpus")
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return count_corpus(find_shards([str(file)]), folder / "work", memory_bytes=10**9, num_workers=1).table


@pytest.fixture(scope="package", params=["sentencepiece", "llama-3", "gpt-neox"])
def base(request: pytest.FixtureRequest) -> Base:
    return small_base(request.param)


@pytest.fixture(scope="package")
def pretokens(table: Path, base: Base) -> Pretokens:
    return count_pretokens(table, base)


@pytest.fixture(scope="package")
def intermediate(pretokens: Pretokens, base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = tmp_path_factory.mktemp("intermediate") / "small.model"
    train_intermediate(pretokens, base, 1000, model)
    return read_tokens(model)
