"""Every way in which the gate refuses a request, and the one place that says so to the client.

Refusal
├── Invalid            400   a field breaks a bound, or the body is not what it should be
├── Unauthorized       401   no key, or one that is not in the file, or has expired
├── Forbidden          403   the key may not do this
├── NotFound           404   no such route
├── WrongMethod        405
├── TooSlow            408   headers or body did not arrive in time
├── TooLarge           413   the body is larger than is taken
├── HeadTooLarge       431   the headers are
├── Limited            429   the key has used up its requests, tokens or concurrency
├── Overloaded         429   every slot is taken and the waiting room full, or the wait was too long
├── Unavailable        503   draining, or the engine is not there
└── Late               504   the request outlasted its deadline
"""

import math
from collections.abc import Sequence

from server.life import Outcome

Header = tuple[bytes, bytes]


class Refusal(Exception):  # noqa: N818
    """An answer that is not vLLM's. `retry_after_s`: when it may be worth trying again."""

    status = 500
    kind = "InternalServerError"
    outcome: Outcome = "invalid"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.extra_headers = headers

    @property
    def body(self) -> dict[str, object]:
        """In the shape that OpenAI clients read; `code` is the status, as in vLLM's own errors, or a word."""
        code = self.code or self.status
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": code}}

    @property
    def headers(self) -> list[Header]:
        """Headers that belong to it."""
        if self.retry_after_s is None:
            return [*self.extra_headers]
        return [*self.extra_headers, (b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode())]


class Invalid(Refusal):
    """A field breaks a bound, or the body is not what it should be."""

    status, kind = 400, "BadRequestError"


class Unauthorized(Refusal):
    """No key, or none that is valid."""

    status, kind = 401, "AuthenticationError"


class Forbidden(Refusal):
    """The key may not do this."""

    status, kind = 403, "PermissionDeniedError"


class NotFound(Refusal):
    """No such route."""

    status, kind = 404, "NotFoundError"


class WrongMethod(Refusal):
    """The route answers other methods."""

    status, kind = 405, "MethodNotAllowed"


class TooSlow(Refusal):
    """The request did not arrive in time."""

    status, kind = 408, "RequestTimeoutError"


class TooLarge(Refusal):
    """The body is larger than is taken."""

    status, kind = 413, "RequestTooLargeError"


class HeadTooLarge(Refusal):
    """The headers are larger than is taken."""

    status, kind = 431, "RequestTooLargeError"


class Limited(Refusal):
    """The key has used up what it may."""

    status, kind, outcome = 429, "RateLimitError", "limited"


class Overloaded(Refusal):
    """More work than can be taken on now."""

    status, kind, outcome = 429, "OverloadedError", "refused"


class Unavailable(Refusal):
    """Nothing is taken on now."""

    status, kind, outcome = 503, "ServiceUnavailableError", "refused"


class Late(Refusal):
    """The request outlasted its deadline."""

    status, kind, outcome = 504, "DeadlineExceededError", "failed"
