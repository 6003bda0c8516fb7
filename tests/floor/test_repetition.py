import pytest

from malmoi.repetition import ends_in_loop


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        pytest.param([1, 2, 3] + [7] * 16, True, id="one token"),
        pytest.param([1, 2, 3] + [7] * 15, False, id="one token, short of a loop"),
        pytest.param([5, 6, 7, 8, 9] * 4, True, id="a phrase four times"),
        pytest.param([5, 6, 7, 8, 9] * 3 + [5, 6, 7, 8], False, id="not quite four times"),
        pytest.param(list(range(64)) * 4, True, id="the longest period"),
        pytest.param(list(range(65)) * 4, False, id="a longer one"),
        pytest.param([7] * 30 + [1], False, id="a loop that was left"),
        pytest.param(list(range(200)), False, id="no repetition"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_a_loop_is_at_the_end_and_long_enough(ids: list[int], expected: bool) -> None:
    assert ends_in_loop(ids) is expected
