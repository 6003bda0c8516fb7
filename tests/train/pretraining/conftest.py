import json
from pathlib import Path

import pytest

from tests.support.checkpoints import create_grown_checkpoint
from train.demo.conversations import sentences


@pytest.fixture(scope="package")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of sentences that the project generates."""
    folder = tmp_path_factory.mktemp("korean")
    for number in range(2):
        texts = sentences(1500, number)
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{number}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="package")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("english") / "sums.jsonl"
    texts = [f"{first} plus {second} is {first + second}." for first in range(60) for second in range(40)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


@pytest.fixture(scope="package")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with separate input and output rows, 64 of which are new."""
    return create_grown_checkpoint(tmp_path_factory.mktemp("grown") / "base")


@pytest.fixture(scope="package")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_grown_checkpoint(tmp_path_factory.mktemp("tied") / "base", tied=True)
