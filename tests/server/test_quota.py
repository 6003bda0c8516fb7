"""Quotas: what is reserved, what is given back, and what the headers say of it."""

import pytest

from server.keys import Key, digest_of
from server.life import Life
from server.quota import Quota
from server.refusal import Limited
from tests.server.test_keys import Clock


def key(**limits: int) -> Key:
    return Key(id="k", name="k", digest=digest_of("k"), **limits)  # type: ignore[arg-type]


def life(prompt_tokens: int = 0, completion_tokens: int = 0, *, admitted: bool = True) -> Life:
    return Life(
        route="chat",
        received_at=0.0,
        admitted_at=0.0 if admitted else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def headers(quota: Quota, unit: str) -> dict[str, str]:
    prefix, suffix = b"x-ratelimit-", f"-{unit}".encode()
    found = {name.removeprefix(prefix): value for name, value in quota.headers() if name.endswith(suffix)}
    return {name.removesuffix(suffix).decode(): value.decode() for name, value in found.items()}


def test_requests_come_back_steadily() -> None:
    clock = Clock()
    quota = Quota(key(requests_per_minute=6), clock)
    for _ in range(6):
        with quota.reserved(0, life()):
            pass
    assert headers(quota, "requests") == {"limit": "6", "remaining": "0", "reset": "60.000s"}
    with pytest.raises(Limited) as refused, quota.reserved(0, life()):
        pass
    assert refused.value.retry_after_s == pytest.approx(10)
    clock.now += 10
    with quota.reserved(0, life()):
        pass
    clock.now += 3600
    assert headers(quota, "requests") == {"limit": "6", "remaining": "6", "reset": "0.000s"}


def test_tokens_not_used_are_given_back_and_tokens_used_beyond_are_owed() -> None:
    clock = Clock()
    quota = Quota(key(tokens_per_minute=600), clock)
    with quota.reserved(500, life(100, 50)):
        assert headers(quota, "tokens")["remaining"] == "100"
    assert headers(quota, "tokens")["remaining"] == "450"
    with quota.reserved(10, life(600, 450)):
        pass
    assert headers(quota, "tokens")["remaining"] == "0"
    with pytest.raises(Limited) as refused, quota.reserved(100, life()):
        pass
    assert refused.value.retry_after_s == pytest.approx(70), "600 are owed, 100 are wanted, 10 come each second"


def test_request_for_more_than_a_minute_brings_passes_when_the_bucket_is_full() -> None:
    clock = Clock()
    quota = Quota(key(tokens_per_minute=60), clock)
    with quota.reserved(4096, life(10, 20)), pytest.raises(Limited), quota.reserved(1, life()):
        pass
    assert headers(quota, "tokens")["remaining"] == "30"


def test_request_that_was_refused_later_counts_for_nothing() -> None:
    quota = Quota(key(requests_per_minute=6, tokens_per_minute=60, concurrency=1), Clock())
    with pytest.raises(RuntimeError), quota.reserved(30, life(admitted=False)):
        raise RuntimeError
    assert headers(quota, "requests")["remaining"] == "6"
    assert headers(quota, "tokens")["remaining"] == "60"
    assert quota.num_open == 0


def test_refusal_of_one_limit_takes_nothing_of_another() -> None:
    quota = Quota(key(requests_per_minute=6, tokens_per_minute=60), Clock())
    with quota.reserved(60, life(30, 30)):
        pass
    with pytest.raises(Limited, match="60 tokens"), quota.reserved(1, life()):
        pass
    assert headers(quota, "requests")["remaining"] == "5"


def test_new_limits_of_a_key_count_what_it_has_used() -> None:
    quota = Quota(key(requests_per_minute=6), Clock())
    for _ in range(4):
        with quota.reserved(0, life()):
            pass
    quota.adopt(key(requests_per_minute=10))
    assert headers(quota, "requests")["remaining"] == "6"
    quota.adopt(key(requests_per_minute=3))
    with pytest.raises(Limited), quota.reserved(0, life()):
        pass
    quota.adopt(key())
    assert quota.headers() == []
    with quota.reserved(10**9, life()):
        pass
