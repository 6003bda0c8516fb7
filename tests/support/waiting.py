"""Waiting for what other processes and threads bring about."""

import time
from collections.abc import Callable

import httpx

PATIENCE_S = 30.0


def until(is_so: Callable[[], object]) -> None:
    """Waits until it is; what cannot be reached yet is not."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if is_so():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come about")
