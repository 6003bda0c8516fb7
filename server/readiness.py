"""Whether the engine decodes: what /ready says, and when a server is given up as hung.

A step is owed from the moment there is work. An engine that has none, and has not shown itself for a while or
still owes a step to work that was taken back, is given a little: a stopped process is found whether anyone asks
something of it or not, and nothing but a step clears it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from time import monotonic
from typing import Any, Final

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 0.5
"""Between two looks."""
IDLE_S: Final = 10.0
"""An idle engine is given something to decode after so long."""
STALL_TIMEOUT_S: Final = 30.0
"""Default of how long a step may take."""
ASLEEP_S: Final = 5.0
"""When nobody has looked for so long, this process was itself stopped: that time is not the engine's."""
GIVE_UP_FACTOR: Final = 10
"""An engine that has stalled for so many times the bound is given up."""
STALLED: Final = "stalled"


class Readiness:
    """Watches an engine; `clock` in seconds.

    num_steps: how many steps it has taken so far.
    has_work: whether it has requests that are not finished.
    prove: decodes a token or two; it may raise what an engine raises that dies.
    stall_timeout_s: how long a step may take. Longer than the longest: that of a whole chunk of a prompt.
    idle_s: how long an engine without work may go unseen.
    """

    def __init__(
        self,
        *,
        num_steps: Callable[[], int],
        has_work: Callable[[], bool],
        prove: Callable[[], Coroutine[Any, Any, None]],
        stall_timeout_s: float = STALL_TIMEOUT_S,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._num_steps = num_steps
        self._has_work = has_work
        self._prove = prove
        self._stall_timeout_s = stall_timeout_s
        self._idle_s = idle_s
        self._clock = clock
        self._num_seen = num_steps()
        self._seen_at = self._looked_at = clock()
        self._owed_since: float | None = None
        self._proof: asyncio.Task[None] | None = None
        self.is_stalled = False
        """What `problem` said when the watch last looked; any thread may ask."""

    @property
    def owed_s(self) -> float:
        """How long a step has been owed."""
        return 0.0 if self._owed_since is None else self._clock() - self._owed_since

    @property
    def is_hung(self) -> bool:
        """Whether to give the engine up."""
        self._look()
        return self.owed_s > GIVE_UP_FACTOR * self._stall_timeout_s

    def problem(self) -> str | None:
        """Why the server is not ready, as /ready says it; None where it is."""
        self._look()
        return STALLED if self.owed_s > self._stall_timeout_s else None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks at the engine regularly within the block."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            tasks = [task for task in (watch, self._proof) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            self._look()
            self._tell()
            await asyncio.sleep(INTERVAL_S)

    def _look(self) -> None:
        now, num_steps = self._clock(), self._num_steps()
        unseen_s, self._looked_at = now - self._looked_at, now
        if unseen_s > ASLEEP_S:
            self._seen_at += unseen_s
            self._owed_since = None if self._owed_since is None else self._owed_since + unseen_s
        if num_steps != self._num_seen:
            self._num_seen, self._seen_at, self._owed_since = num_steps, now, None
        if self._owed_since is None and self._has_work():
            self._owed_since = now
        needs_proof = self._owed_since is not None or now - self._seen_at > self._idle_s
        if needs_proof and not self._has_work() and (self._proof is None or self._proof.done()):
            self._owed_since = now if self._owed_since is None else self._owed_since
            # in no request's context, whoever has asked: its two tokens are nobody's
            self._proof = asyncio.create_task(self._ask_for_proof(), context=Context())

    async def _ask_for_proof(self) -> None:
        try:
            await self._prove()
        except Exception as error:
            logger.warning("the engine did not decode when idle: %s", error)

    def _tell(self) -> None:
        """Says when it begins to stall and when it goes on, once."""
        is_stalled = self.owed_s > self._stall_timeout_s
        if is_stalled and not self.is_stalled:
            given_up_s = (GIVE_UP_FACTOR - 1) * self._stall_timeout_s
            logger.error("no decoding step for %.0f s; given up in %.0f s", self.owed_s, given_up_s)
        elif self.is_stalled and not is_stalled:
            logger.warning("decoding goes on")
        self.is_stalled = is_stalled
