from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from malmoi.errors import CheckpointError
from quant.loading import load_model, memory_bytes
from tests.support.checkpoints import KOREAN, save_model, save_tokenizer
from tests.support.exports import copy_changed


def test_weights_that_are_not_in_the_files_are_not_made_up(tiny_checkpoint: Path, tmp_path: Path) -> None:
    longer = copy_changed(tiny_checkpoint, tmp_path / "longer", num_hidden_layers=3)
    with pytest.raises(
        CheckpointError, match=r"loads whole, found 9 missing keys, among them model\.layers\.2"
    ):
        load_model(longer)


def test_an_error_of_the_measuring_process_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint directory, found no such directory"):
        memory_bytes(tmp_path / "nothing")


def test_weights_that_no_token_asks_for_are_memory_too(tmp_path: Path) -> None:
    """Of a file that is mapped the table's pages are read one by one."""
    save_tokenizer(tmp_path, sentences=KOREAN)
    save_model(tmp_path, vocab_size=200_000)
    table = open_checkpoint(tmp_path).weight_bytes
    assert table < memory_bytes(tmp_path) < 2 * table
