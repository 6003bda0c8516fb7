from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from malmoi.windows import window_width, windows

WIDTH = 16


@pytest.mark.parametrize("length", [2, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH + 8, WIDTH + 9, 3 * WIDTH + 5])
def test_windows_predict_every_token_once_from_half_a_window_at_least(length: int) -> None:
    found = list(windows(range(length), WIDTH))
    predicted = [token for window in found for token in window.ids[window.first :]]
    assert predicted == list(range(1, length))
    assert all(len(window.ids) <= WIDTH for window in found)
    assert all(window.first >= WIDTH // 2 for window in found[1:])


def test_the_window_is_what_the_model_was_made_for(tiny_checkpoint: Path) -> None:
    assert window_width(open_checkpoint(tiny_checkpoint)) == 512
