from pathlib import Path

import pytest

from tests.support.benchmarks import write_kobest
from tests.support.checkpoints import create_grown_checkpoint
from tests.support.exports import create_grown_chat


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose predictions are far from flat."""
    folder = tmp_path_factory.mktemp("evaluated") / "base"
    return create_grown_checkpoint(folder, dtype="float32", initializer_range=0.2)


@pytest.fixture(scope="package")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of random weights."""
    return create_grown_chat(tmp_path_factory.mktemp("evaluated") / "chat", dtype="float32")


@pytest.fixture(scope="package")
def kobest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of all five tasks, as KoBEST's authors publish them."""
    return write_kobest(tmp_path_factory.mktemp("kobest") / "rows")
