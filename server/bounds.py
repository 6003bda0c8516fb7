"""Every bound of the server, with its default; a refusal names the bound it stands for."""

from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from malmoi.errors import ServeError

MIB = 1 << 20
NotGiven = Annotated[int | None, tyro.conf.arg(help_behavior_hint="")]
"""A number whose text says what holds without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """how much of everything the server takes. A sequence is one answer: there are `n` for each prompt."""

    max_running: NotGiven = None
    """sequences that are written at once; the engine's --max-num-seqs if not given."""
    max_waiting: NotGiven = None
    """sequences that may wait for their turn, fairly between keys; as many again if not given."""
    queue_timeout_s: Annotated[float, tyro.conf.arg(name="queue-timeout")] = 30.0
    """seconds a request may wait for its turn; then it is refused (429)."""
    request_timeout_s: Annotated[float, tyro.conf.arg(name="request-timeout")] = 600.0
    """seconds from a request's first byte in which its answer must be done (504)."""
    header_timeout_s: Annotated[float, tyro.conf.arg(name="header-timeout")] = 15.0
    """seconds in which a request's headers must have arrived (408)."""
    body_timeout_s: Annotated[float, tyro.conf.arg(name="body-timeout")] = 30.0
    """seconds in which a request's body must have arrived (408)."""
    write_timeout_s: Annotated[float, tyro.conf.arg(name="write-timeout")] = 60.0
    """seconds a client may leave its answer unread; then it counts as gone."""
    keep_alive_timeout_s: Annotated[float, tyro.conf.arg(name="keep-alive-timeout")] = 75.0
    """seconds an idle connection is kept. More than clients and proxies keep theirs, so that none asks on one
    that is about to end."""
    max_body_bytes: int = MIB
    """bytes of a request's body (413)."""
    max_n: int = 8
    """answers that one request may ask for (400)."""
    max_tokens: NotGiven = None
    """tokens of one answer, asked for (400) or not; what fits into the context if not given."""
    max_logprobs: int = 20
    """alternatives that may be asked for at each token (400)."""
    max_schema_bytes: int = 64 * 1024
    """bytes of a JSON schema, a grammar, or all tools of a request (400)."""
    max_depth: int = 32
    """how deep objects and lists of a request may be nested (400)."""
    strict: bool = False
    """fields that the server does not know are an error (400), not a warning in the answer's headers."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("max_waiting", "max_logprobs") else 1e-9
            if value is not None and name != "strict" and value < least:
                raise ServeError(
                    f"--{name.removesuffix('_s').replace('_', '-')}",
                    expected="more than 0" if least else "0 or more",
                    found=str(value),
                    next_step="malmoi-serve --help shows the defaults",
                )
