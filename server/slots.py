"""Who may run now, who waits, and who is turned away: all decided before a byte of an answer is written.

Fair between keys: a free slot goes to the key that has the fewest sequences running, and within a key, or where
that is a tie, to who has waited longest. When the waiting room is full, the key that fills most of it loses its
latest (longest-queue drop: McKenney, Stochastic Fairness Queueing, 1990), unless that is the newcomer's own.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from server.refusal import Overloaded, Refusal

REMEMBERED = 64
"""Sequences that have ended, from which the service rate is measured."""
FIRST_GUESS_S = 5.0
"""How long a slot is held, until one has been given back."""
LONGEST_RETRY_AFTER_S = 300.0


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """A request's claim on `size` sequences; `turn` is there while it waits, and done when its turn comes."""

    owner: str
    size: int
    asked_at: float
    granted_at: float | None = None
    turn: asyncio.Future[None] | None = field(default=None)


class Slots:
    """`capacity` sequences run, `room` wait. One event loop: nothing comes between a check and its count.

    unit: what refusals call them.
    """

    def __init__(
        self,
        capacity: int,
        room: int,
        clock: Callable[[], float] = time.perf_counter,
        *,
        unit: str = "sequences",
    ) -> None:
        self.capacity = capacity
        self.room = room
        self._unit = unit
        self.num_running = 0
        self.num_waiting = 0
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Place]] = {}
        self._holds_s: deque[float] = deque(maxlen=REMEMBERED)
        self._closed: Callable[[], Refusal] | None = None

    def ask(self, owner: str, size: int) -> Place:
        """A place that runs, or that waits on its `turn`; `give_back` it in either case.

        Raises: Overloaded if there is no room to wait; after `close`, what it was given instead of a wait.
        """
        place = Place(owner=owner, size=size, asked_at=self._clock())
        if not self._waiting and self.num_running + size <= self.capacity:
            self._run(place)
            return place
        if self._closed:
            raise self._closed()
        self._make_room(owner, size)
        place.turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(place)
        self.num_waiting += size
        self._grant()
        return place

    def give_back(self, place: Place, *, has_worked: bool = True) -> None:
        """The place's sequences have ended, or are not waited for any more.

        has_worked: only then does the time it held them tell how long others will.
        """
        if place.granted_at is not None:
            if has_worked:
                self._holds_s.extend([self._clock() - place.granted_at] * place.size)
            self.num_running -= place.size
            self._running[place.owner] -= place.size
            if not self._running[place.owner]:
                del self._running[place.owner]
        elif place in self._waiting.get(place.owner, ()):
            self._remove(place)
        self._grant()

    def close(self, refusal: Callable[[], Refusal]) -> None:
        """From now on nobody waits, those who do are refused; a free slot is still given to who was let in."""
        self._closed = refusal
        for place in [place for queue in self._waiting.values() for place in queue]:
            self._turn_away(place, refusal())

    def overloaded(self, reason: str) -> Overloaded:
        """The refusal to answer with, and when to try again."""
        return Overloaded(
            f"{reason} ({self.num_running} of {self.capacity} {self._unit} run, "
            f"{self.num_waiting} of {self.room} wait); try again later.",
            retry_after_s=self.retry_after_s(),
        )

    def retry_after_s(self) -> float:
        """Seconds until those who wait now have been served, at the rate at which slots were given back."""
        hold_s = fmean(self._holds_s) if self._holds_s else FIRST_GUESS_S
        return min(LONGEST_RETRY_AFTER_S, (self.num_waiting + 1) * hold_s / self.capacity)

    def _make_room(self, owner: str, size: int) -> None:
        """Turns away the latest of keys that fill more of the room than `owner` then would."""
        filled = {key: sum(place.size for place in queue) for key, queue in self._waiting.items()}
        would_fill = filled.pop(owner, 0) + size
        dropped: list[Place] = []
        while self.num_waiting + size - sum(place.size for place in dropped) > self.room:
            longest = max(filled, key=filled.__getitem__, default=None)
            if longest is None or filled[longest] <= would_fill:
                raise self.overloaded("The waiting room is full")
            latest = next(place for place in reversed(self._waiting[longest]) if place not in dropped)
            dropped.append(latest)
            filled[longest] -= latest.size
        for place in dropped:
            self._turn_away(place, self.overloaded("The waiting room is full"))

    def _turn_away(self, place: Place, refusal: Refusal) -> None:
        self._remove(place)
        if place.turn and not place.turn.done():
            place.turn.set_exception(refusal)

    def _remove(self, place: Place) -> None:
        queue = self._waiting[place.owner]
        queue.remove(place)
        if not queue:
            del self._waiting[place.owner]
        self.num_waiting -= place.size

    def _grant(self) -> None:
        while self._waiting:
            owner = min(self._waiting, key=lambda key: (self._running[key], self._waiting[key][0].asked_at))
            place = self._waiting[owner][0]
            if self.num_running + place.size > self.capacity:
                return
            self._remove(place)
            self._run(place)

    def _run(self, place: Place) -> None:
        place.granted_at = self._clock()
        self.num_running += place.size
        self._running[place.owner] += place.size
        if place.turn and not place.turn.done():
            place.turn.set_result(None)
