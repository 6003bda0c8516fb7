"""One request's life as the gate sees it: the one record that metrics, usage and limits are fed from.

The gate makes a `Life` when a request's first byte has arrived and fills it in as the request goes on; a
`server.metrics.Measurement` is made with it and told of the answer's bytes. In this order:

    Measurement(metrics=..., life=..., clock=...)   route, key and first byte are known, or the route is not
    .headers()      once, right before the status line is written: what to add to the answer's headers
    .wrote(part)    just before each part of the answer's body is written
    .finish(life.outcome)   once, whatever happened; `life` is whole by then

Whoever wants to know more of a request reads it from `life`, at any of these calls.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "invalid", "limited", "refused", "failed", "disconnected", "filtered"]
"""How a request ended: answered; 4xx; 429 by a limit of its own key; 429 or 503 of a server that takes no more;
5xx, or a stream with an error inside or without its end; the client went before the end; stopped by the safety
hook."""


@dataclass(slots=True, kw_only=True)
class Life:
    """Times are seconds of time.perf_counter(), None as long as it has not happened."""

    route: str
    received_at: float
    """The request's first byte."""
    key: str = ""
    """The id of its key; empty where the server has none, or it showed none."""
    group: str = ""
    """The group of its key, for series that must stay few."""
    echoes: bool = False
    """The answer repeats the prompt, which the model did not write."""
    queued_at: float | None = None
    """Read, checked, and asked for a slot."""
    admitted_at: float | None = None
    """Given a slot: vLLM has it from now on."""
    started_at: float | None = None
    """The status line of the answer was written."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Counted where the engine's tokens arrive, so those of an answer that is cut off are in it."""
    engine_queue_s: float = 0.0
    """How long the engine itself let it wait before it was first scheduled."""
    first_text_at: float | None = None
    """The first text of a streamed answer was written."""
    ended_at: float | None = None
    characters: int = 0
    """Of the answer; both, and the one above, are set by Measurement.finish."""
    outcome: Outcome = "failed"


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)
"""The request that this task works for; set by the gate, read where the engine's tokens arrive."""
