"""Who may use the server: one file of hashed keys, read again whenever it has changed.

A key is 256 random bits, so its plain SHA-256 can be neither guessed nor inverted. The key itself is shown when
it is made, and kept nowhere.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec

from malmoi.errors import ServeError
from malmoi.files import sole_writer, write_whole

logger = logging.getLogger(__name__)

RELOAD_INTERVAL_S = 1.0
"""The file is looked at no more often; so long may a revoked key still be let in."""
PREFIX = "malmoi-"
DAYS = re.compile(r"(\d{1,5})d")


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one key may do; None is without limit."""

    id: str
    name: str
    digest: str
    """SHA-256 of the key, in hexadecimal."""
    group: str = "default"
    """Whose latency its requests are counted with."""
    created: datetime | None = None
    expires: datetime | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    concurrency: int | None = None
    """Requests that are served or wait at once."""
    models: tuple[str, ...] | None = None
    """Names in the API that may be asked for."""
    metrics: bool = False
    """Whether it may read /metrics."""

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise ValueError(f"{name} must be 1 or more, not {limit}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError("digest must be a SHA-256 in hexadecimal")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("expires must name its time zone")

    def has_expired(self) -> bool:
        """Whether its time is over, by the wall clock."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


ANYONE = Key(id="", name="anyone", digest="0" * 64, group="", metrics=True)
"""Whom a server without keys lets in."""


class KeyList(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    version: int = 1
    keys: list[Key] = []


def read_keys(file: Path) -> list[Key]:
    """The keys of `file`.

    Raises: ServeError if it is not there, or is no such file.
    """
    try:
        listed = msgspec.json.decode(file.read_bytes(), type=KeyList)
        if listed.version != 1 or len({key.id for key in listed.keys}) < len(listed.keys):
            raise msgspec.ValidationError("another version, or an id that two keys have")
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ServeError(
            file,
            expected="a file of keys",
            found=error.strerror or str(error) if isinstance(error, OSError) else str(error),
            next_step="make one: malmoi-serve keys add FILE NAME",
        ) from error
    return listed.keys


def add_key(file: Path, key: Key) -> None:
    """Adds `key` to `file`, which is made if it is not there.

    Raises: ServeError if `file` is there and no file of keys; OutputError if it cannot be written.
    """
    with sole_writer(file.absolute().parent):
        _write(file, [*(read_keys(file) if file.exists() else []), key])


def revoke_key(file: Path, wanted: str) -> Key:
    """Takes the one key whose id or name is `wanted` out of `file`, and returns it.

    Raises: ServeError if there is none, or more than one of that name.
    """
    with sole_writer(file.absolute().parent):
        keys = read_keys(file)
        chosen = [key for key in keys if wanted in (key.id, key.name)]
        if len(chosen) != 1:
            found = "none" if not chosen else "the ids " + ", ".join(key.id for key in chosen)
            raise ServeError(
                file,
                expected=f"one key with the id or name {wanted}",
                found=found,
                next_step="name an id: malmoi-serve keys list FILE",
            )
        _write(file, [key for key in keys if key is not chosen[0]])
    return chosen[0]


def _write(file: Path, keys: list[Key]) -> None:
    content = msgspec.json.format(msgspec.json.encode(KeyList(keys=keys)), indent=2)
    write_whole(file, content.decode() + "\n")


def new_secret() -> str:
    """A key as it is handed out."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str | bytes) -> str:
    """What is kept of it."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def parse_expiry(text: str) -> datetime:
    """The moment that "30d", "2027-01-31" or "2027-01-31T12:00+09:00" stands for; UTC where no zone is named.

    Raises: ServeError for anything else.
    """
    try:
        if days := DAYS.fullmatch(text):
            return datetime.now(UTC).replace(microsecond=0) + timedelta(days=int(days[1]))
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ServeError(
            "--expires",
            expected=f"days (30d) or a date ({date.today().isoformat()})",
            found=repr(text),
            next_step="name one of them",
        ) from error


class KeyFile:
    """The keys of a file, as it is now. An edit that cannot be read is said once, and the keys before it stay.

    Raises: ServeError if the file cannot be read to begin with.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._looked_at = clock()
        self._stamp = self._look()
        self._keys = _by_digest(read_keys(file))

    def find(self, secret: bytes) -> Key | None:
        """The key that `secret` is, expired or not. Every key is compared, in constant time."""
        self._reload()
        digest = hashlib.sha256(secret).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(digest, known):
                found = key
        return found

    def _reload(self) -> None:
        now = self._clock()
        if now - self._looked_at < RELOAD_INTERVAL_S:
            return
        self._looked_at = now
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _by_digest(read_keys(self._file))
            logger.info("%s: read again, %d keys", self._file, len(self._keys))
        except ServeError as error:
            logger.warning("%s; the keys read before stay valid", error)

    def _look(self) -> tuple[int, int, int] | None:
        """What changes with the file."""
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _by_digest(keys: list[Key]) -> list[tuple[bytes, Key]]:
    return [(bytes.fromhex(key.digest), key) for key in keys]
