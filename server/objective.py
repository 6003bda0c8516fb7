"""What is promised of latency, and how far it is kept: goodput, and the burn of the error budget."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import tyro

from malmoi.errors import ServeError
from server.life import Outcome

KEPT: Final[frozenset[Outcome]] = frozenset({"ok", "filtered"})
BROKEN: Final[frozenset[Outcome]] = frozenset({"refused", "failed"})
"""Outcomes that break the promise, however fast; the others are the client's own doing and do not count."""
MINUTE_S: Final = 60
WINDOWS: Final = {"5m": 5, "30m": 30, "1h": 60, "6h": 360}
"""Minutes; in pairs of one and of six hours those of the Site Reliability Workbook, chapter 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The promise: of all requests, the share `target` is answered at least this fast."""

    time_to_first_token_s: Annotated[float, tyro.conf.arg(name="objective-ttft")] = 1.0
    """Seconds from the first byte of a request to the first text of a streamed answer."""
    seconds_per_character: Annotated[float, tyro.conf.arg(name="objective-per-character")] = 0.1
    """Seconds from the first byte of a request to the last of its answer, for each of its characters."""
    target: Annotated[float, tyro.conf.arg(name="objective-share")] = 0.99
    """Of the requests, the share that is to be as fast as that."""

    def __post_init__(self) -> None:
        if not (0 < self.target < 1 and self.time_to_first_token_s > 0 and self.seconds_per_character > 0):
            raise ServeError(
                "--objective-...",
                expected="times above 0 and a share between 0 and 1",
                found=f"{self.time_to_first_token_s:g} s, {self.seconds_per_character:g} s, {self.target:g}",
                next_step="mend the option",
            )

    def is_met(
        self, outcome: Outcome, time_to_first_token_s: float | None, seconds_per_character: float | None
    ) -> bool | None:
        """Whether a request that ended so kept the promise; None for one that does not count.

        A time that is None was not measured: whole answers have no first token, empty ones no characters.
        """
        if outcome in BROKEN:
            return False
        if outcome not in KEPT:
            return None
        return (time_to_first_token_s or 0.0) <= self.time_to_first_token_s and (
            seconds_per_character or 0.0
        ) <= self.seconds_per_character


class Budget:
    """How fast the requests that broke the promise use up what the target leaves; `clock` in seconds."""

    def __init__(self, objective: Objective, clock: Callable[[], float]) -> None:
        self.objective = objective
        self._clock = clock
        self._minutes = [(-1, 0, 0)] * max(WINDOWS.values())
        """Number of the minute, requests that count, those of them that met it; at its number modulo length."""

    def count(self, is_met: bool) -> None:
        """Takes a request that counts."""
        number = int(self._clock() // MINUTE_S)
        place = number % len(self._minutes)
        minute, counted, met = self._minutes[place]
        if minute != number:
            counted, met = 0, 0
        self._minutes[place] = (number, counted + 1, met + is_met)

    def share_met(self, window: str) -> float | None:
        """Share of the requests of the last minutes that met the objective; None if there were none."""
        since = int(self._clock() // MINUTE_S) - WINDOWS[window]
        counts = [(counted, met) for number, counted, met in self._minutes if number > since]
        num_counted = sum(counted for counted, _ in counts)
        return sum(met for _, met in counts) / num_counted if num_counted else None

    def burn_rate(self, window: str) -> float | None:
        """1 uses the budget up just as the period of the target ends; above, sooner; None without requests."""
        share = self.share_met(window)
        return None if share is None else (1 - share) / (1 - self.objective.target)
