"""malmoi-serve keys: make, show and take back the keys of a server."""

import json
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

from malmoi.errors import ServeError
from server.keys import Key, add_key, digest_of, new_secret, parse_expiry, read_keys, revoke_key

Limit = Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: no limit)")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


def add(
    file: File,
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    *,
    group: str = "default",
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    concurrency: Limit = None,
    expires: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: never)")] = None,
    models: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="NAME...", help_behavior_hint="(default: all)")
    ] = None,
    metrics: bool = False,
) -> None:
    """Make a key and add it to FILE. It is printed once, and kept nowhere.

    A running server knows it at once.

    Args:
        file: the server's file of keys; made if it is not there.
        name: whose key it is.
        group: whose latencies its requests are counted with, in the metrics.
        requests_per_minute: requests it may make in a minute.
        tokens_per_minute: tokens that its prompts and answers may have together in a minute.
        concurrency: requests it may have running or waiting at once.
        expires: when it ends: days from now (30d), or a date (2027-01-31).
        models: names in the API that it may ask for.
        metrics: it may read /metrics.
    """
    secret = new_secret()
    try:
        key = Key(
            id=secrets.token_hex(4),
            name=name,
            digest=digest_of(secret),
            group=group,
            created=datetime.now(UTC).replace(microsecond=0),
            expires=parse_expiry(expires) if expires else None,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrency=concurrency,
            models=models,
            metrics=metrics,
        )
    except ValueError as error:
        raise ServeError(
            f"the key {name}", expected="limits of 1 or more", found=str(error), next_step="name another"
        ) from error
    add_key(file, key)
    print(f"{key.id} was added to {file}; the key is shown this once:", file=sys.stderr)
    print(secret)


def list_(file: File, *, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> None:
    """Show the keys of FILE, without the keys themselves.

    Args:
        file: the server's file of keys.
        as_json: for a machine to read.
    """
    keys = [describe(key) for key in read_keys(file)]
    if as_json:
        print(json.dumps(keys, ensure_ascii=False))
        return
    for key in keys:
        print(key.pop("id"), key.pop("name"), *(f"{field}={_plain(value)}" for field, value in key.items()))


def revoke(file: File, key: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID_OR_NAME")]) -> None:
    """Take a key out of FILE.

    A running server refuses it from the next second on; what it answers, it ends.

    Args:
        file: the server's file of keys.
        key: its id or, where no other key has it, its name.
    """
    revoked = revoke_key(file, key)
    print(f"{revoked.id} {revoked.name} was taken out of {file}", file=sys.stderr)


def describe(key: Key) -> dict[str, object]:
    """What may be shown of it."""
    shown: dict[str, object] = msgspec.to_builtins(key)
    del shown["digest"]
    if key.has_expired():
        shown["has_expired"] = True
    return shown


def _plain(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


COMMANDS: dict[str, Callable[..., None]] = {"add": add, "list": list_, "revoke": revoke}
