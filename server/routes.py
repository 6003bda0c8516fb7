"""The paths that exist; every other is 404, whatever vLLM has there."""

from dataclasses import dataclass
from typing import Literal

from server.page.site import CARD, FILES, LIVE


@dataclass(frozen=True, slots=True)
class Route:
    """A path that exists."""

    name: str
    methods: tuple[str, ...] = ("GET",)
    works: Literal["", "quickly", "in a slot"] = ""
    """It needs the engine, or its tokenizer only; so it is refused while draining."""
    access: Literal["anyone", "key", "metrics"] = "key"
    """Who may, on a server that has keys: anyone, every key, or keys that may read the metrics."""


USAGE = "/v1/usage"
DOCUMENT = "/openapi.json"
ROUTES = {
    "/v1/chat/completions": Route("chat", ("POST",), works="in a slot"),
    "/v1/completions": Route("completions", ("POST",), works="in a slot"),
    "/tokenize": Route("tokenize", ("POST",), works="quickly"),
    "/detokenize": Route("tokenize", ("POST",), works="quickly"),
    "/v1/models": Route("models"),
    USAGE: Route("usage"),
    DOCUMENT: Route("document"),
    "/metrics": Route("metrics", access="metrics"),
    **{path: Route("page", ("GET", "HEAD"), access="anyone") for path in FILES},
    CARD: Route("page", ("GET", "HEAD")),
    LIVE: Route("page", ("GET", "HEAD"), access="metrics"),
}
HEALTH, READY = "/health", "/ready"
