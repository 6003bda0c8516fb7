"""What is behind `/` and `/page/`: the page's own files, the model's card, and the latencies it draws.

Stands between the gate and vLLM's app. Of the paths here, CARD is for whoever may use the model and LIVE for
whoever may read the metrics; the files hold nothing of the model and are for everyone.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from malmoi.checkpoint import Checkpoint
from malmoi.provenance import checkpoint_digest
from server.live import INTERVAL_S
from server.metrics import Metrics
from server.objective import WINDOWS

App = Callable[[Any, Any, Any], Awaitable[None]]

SCRIPTS: Final = ("main", "api", "chat", "charts", "markdown", "model", "words")
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/page/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
}
CARD: Final = "/page/card"
LIVE: Final = "/page/live"
JSON: Final = "application/json"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline: what a model writes cannot become a script even by a mistake here."""
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
)
CARD_FILES: Final = {"card": "README.md", "fidelity": "fidelity.md"}
"""What a release has: see malmoi-quant release."""
CARD_BYTES: Final = 1 << 18
"""At most this much of each is shown."""
FRONT_MATTER: Final = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
LIVE_KEPT_S: Final = 1.0
"""However many look on, percentiles are computed no more often."""


class Site:
    """ASGI application that answers FILES, CARD and LIVE, and passes everything else on to `app`.

    What is asked with another method than GET or HEAD, such as a browser's preflight, is for `app` to answer.
    """

    def __init__(self, app: App, card: bytes, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._live, self._live_until = b"", 0.0
        self._bodies = {path: (kind, _file(name)) for path, (name, kind) in FILES.items()}
        self._bodies[CARD] = (JSON, card)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serves one ASGI scope."""
        path = scope.get("path") if scope.get("method") in ("GET", "HEAD") else None
        if path == LIVE:
            await _send(send, JSON, self._look(), is_head=scope["method"] == "HEAD")
        elif path in self._bodies:
            await _send(send, *self._bodies[path], is_head=scope["method"] == "HEAD")
        else:
            await self._app(scope, receive, send)

    def _look(self) -> bytes:
        now = time.monotonic()
        if now > self._live_until:
            self._live, self._live_until = json.dumps(describe_live(self._metrics)).encode(), now + LIVE_KEPT_S
        return self._live


def describe_live(metrics: Metrics) -> dict[str, object]:
    """The last minutes, in seconds, shares and characters per second; running requests are in it."""
    for measurement in metrics.in_flight:
        measurement.read()
    live, budget = metrics.live, metrics.budget
    return {
        "interval_s": INTERVAL_S,
        "latest": live.latest,
        "series": live.percentiles(),
        "running": metrics.num_running,
        "waiting": metrics.num_waiting,
        "objective": asdict(budget.objective)
        | {
            "met": budget.share_met("5m"),
            "burn_rate": {window: budget.burn_rate(window) for window in WINDOWS},
        },
    }


def describe_card(checkpoint: Checkpoint, name: str, context_tokens: int) -> bytes:
    """JSON of what is served: facts, and the texts that a release has, without the Hub's metadata."""
    origin = checkpoint.provenance.origin if checkpoint.provenance else None
    facts = {
        "name": name,
        "architecture": ", ".join(checkpoint.config.get("architectures") or ()) or None,
        "weights": checkpoint.weight_bytes,
        "quantization": _quantization(checkpoint),
        "context": context_tokens,
        "vocabulary": checkpoint.vocab_size,
        "recipe": origin and origin.recipe,
        "stage": origin and origin.stage,
        "digest": checkpoint.provenance and checkpoint_digest(checkpoint.provenance.files),
        "parent": origin and origin.parent,
        "verified": checkpoint.provenance is not None,
    }
    texts = {key: _text(checkpoint.path / file) for key, file in CARD_FILES.items()}
    return json.dumps({"facts": facts} | texts, ensure_ascii=False).encode()


def _quantization(checkpoint: Checkpoint) -> str | None:
    """Method and, where config.json says them, bits."""
    settings = checkpoint.config.get("quantization_config") or {}
    bits = 4 if settings.get("load_in_4bit") else settings.get("bits")
    return f"{checkpoint.quantization}, {bits} bits" if bits else checkpoint.quantization


def _text(file: Path) -> str | None:
    """What a Markdown file says; None where there is none."""
    if not file.is_file():
        return None
    with file.open("rb") as opened:
        text = opened.read(CARD_BYTES).decode(errors="replace")
    return FRONT_MATTER.sub("", text)


def _file(name: str) -> bytes:
    return files("server.page").joinpath(name).read_bytes()


async def _send(send: Any, kind: str, body: bytes, *, is_head: bool) -> None:
    length = str(len(body)).encode()
    headers = [(b"content-type", kind.encode()), (b"content-length", length), *HEADERS]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})
