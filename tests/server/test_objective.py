"""Which requests keep the promise, and how fast the budget burns."""

import pytest

from malmoi.errors import ServeError
from server.life import Outcome
from server.objective import Budget, Objective

PROMISED = Objective(time_to_first_token_s=1.0, seconds_per_character=0.1, target=0.9)


@pytest.mark.parametrize(
    ("outcome", "first_s", "per_character_s", "expected"),
    [
        ("ok", 1.0, 0.1, True),
        ("ok", 1.1, 0.01, False),
        ("ok", 0.1, 0.11, False),
        ("ok", None, 0.05, True),  # a whole answer
        ("ok", None, 0.2, False),
        ("ok", None, None, True),  # an empty one
        ("refused", None, None, False),
        ("failed", 0.1, 0.01, False),
        ("invalid", None, None, None),
        ("limited", None, None, None),
        ("disconnected", 0.1, 0.01, None),
    ],
)
def test_promise(
    outcome: Outcome, first_s: float | None, per_character_s: float | None, expected: bool | None
) -> None:
    assert PROMISED.is_met(outcome, first_s, per_character_s) is expected


def test_burn_rate_is_of_the_window_and_forgets() -> None:
    now = 600.0
    budget = Budget(PROMISED, lambda: now)
    assert budget.burn_rate("5m") is None
    for is_met in [False] * 2 + [True] * 8:
        budget.count(is_met)
    assert budget.share_met("5m") == pytest.approx(0.8)
    assert budget.burn_rate("5m") == pytest.approx(2.0), "twice the tenth that may fail"
    now += 5 * 60
    budget.count(True)
    assert budget.burn_rate("5m") == pytest.approx(0.0)
    assert budget.burn_rate("30m") == pytest.approx((2 / 11) / 0.1)
    now += 6 * 3600
    assert budget.burn_rate("6h") is None
    budget.count(False)
    assert budget.burn_rate("6h") == pytest.approx(10.0)


@pytest.mark.parametrize("wrong", [{"target": 1.0}, {"target": 0.0}, {"seconds_per_character": 0.0}])
def test_promises_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ServeError, match="between 0 and 1"):
        Objective(**wrong)
