"""Fixtures that several rooms' tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkpoints import create_tiny_checkpoint

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A KoRAE chat checkpoint with random weights; tests must not change it."""
    return create_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def same_environment() -> Iterator[None]:
    """Puts os.environ back: the server and vLLM set variables for the processes they start."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
