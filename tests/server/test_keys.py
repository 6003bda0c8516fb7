"""Keys: the file, the commands that change it, and what the gate makes of them."""

import asyncio
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malmoi.errors import ServeError
from server.keys import (
    RELOAD_INTERVAL_S,
    Key,
    KeyFile,
    add_key,
    digest_of,
    new_secret,
    parse_expiry,
    read_keys,
    revoke_key,
)
from server.routes import ROUTES
from tests.server.conftest import Served, ServeScript
from tests.server.test_gate import ANSWER, CHAT, QUESTION, chat, client_of, token_ids
from tests.server.visitor import Visitor
from tests.support.scripted_engine import Pause, Script


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_key(file: Path, name: str, **may: object) -> str:
    """The secret of a new key in `file`."""
    secret = new_secret()
    add_key(file, Key(id=name[:8], name=name, digest=digest_of(secret), **may))  # type: ignore[arg-type]
    return secret


def with_key(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_key_is_found_until_it_is_revoked(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    secrets = {name: make_key(file, name) for name in ("first", "second", "third")}
    keys = KeyFile(file, clock)
    found = {name: keys.find(secret.encode()) for name, secret in secrets.items()}
    assert {name: key and key.name for name, key in found.items()} == {name: name for name in secrets}
    revoke_key(file, "second")
    clock.now += RELOAD_INTERVAL_S
    assert keys.find(secrets["second"].encode()) is None
    assert keys.find(secrets["third"].encode()) is not None
    late = make_key(file, "late")
    assert keys.find(late.encode()) is None, "the file is not looked at for each request"
    clock.now += RELOAD_INTERVAL_S
    assert keys.find(late.encode()) is not None


@given(st.binary(max_size=80))
def test_nothing_but_the_secret_is_the_key(tmp_path_factory: pytest.TempPathFactory, guess: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "guessed.json"
    if not file.exists():
        make_key(file, "only")
    assert KeyFile(file).find(guess) is None


def test_file_holds_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = make_key(file, "only")
    assert secret not in file.read_text()
    assert len(secret) >= 43, "256 bits"


@pytest.mark.parametrize("content", ["", "{", '{"version":2}', '{"keys":[{"id":"a"}]}', '{"keys":[],"more":1}'])
def test_edit_that_cannot_be_read_leaves_the_keys_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    file, clock = tmp_path / "keys.json", Clock()
    secret = make_key(file, "only")
    keys = KeyFile(file, clock)
    file.write_text(content)
    with caplog.at_level(logging.WARNING, logger="server"):
        for _ in range(3):
            clock.now += RELOAD_INTERVAL_S
            assert keys.find(secret.encode()) is not None
    assert len(caplog.records) == 1
    with pytest.raises(ServeError, match="a file of keys"):
        KeyFile(file)


def test_two_keys_of_one_name_are_revoked_by_id(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for number in "12":
        add_key(file, Key(id=number, name="same", digest=digest_of(number)))
    with pytest.raises(ServeError, match="found the ids 1, 2"):
        revoke_key(file, "same")
    assert revoke_key(file, "2").id == "2"
    assert [key.id for key in read_keys(file)] == ["1"]


def test_expiry_is_days_or_a_date() -> None:
    assert abs(parse_expiry("30d") - datetime.now(UTC) - timedelta(days=30)) < timedelta(seconds=2)
    assert parse_expiry("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert parse_expiry("2027-01-31T09:00+09:00") == datetime(2027, 1, 31, tzinfo=UTC)
    for text in ("", "soon", "2027-13-01", "-3d"):
        with pytest.raises(ServeError, match="days"):
            parse_expiry(text)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "keys", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_commands(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    limits = (
        "--requests-per-minute",
        "60",
        "--tokens-per-minute",
        "1000",
        "--concurrency",
        "2",
        "--expires",
        "30d",
    )
    added = run("add", str(file), "팀", *limits, "--models", "demo", "--metrics", "--group", "inside")
    assert added.returncode == 0, added.stderr
    secret = added.stdout.strip()
    found = KeyFile(file).find(secret.encode())
    assert found is not None
    assert (found.name, found.models, found.metrics, found.group) == ("팀", ("demo",), True, "inside")
    (listed,) = json.loads(run("list", str(file), "--json").stdout)
    assert listed["requests_per_minute"] == 60
    assert "digest" not in listed
    assert secret not in run("list", str(file)).stdout
    assert run("revoke", str(file), "팀").returncode == 0
    assert read_keys(file) == []
    again = run("revoke", str(file), "팀")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert run("add", str(file), "팀", "--concurrency", "0").returncode == 2


async def serving(serve_script: ServeScript, file: Path, **script: object) -> Served:
    served = await serve_script(Script(token_ids=[]), keys=KeyFile(file))
    tokens = token_ids(served, ANSWER)
    served.engine.core.script = Script(token_ids=tokens, **script)  # type: ignore[arg-type]
    return served


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/completions", "/tokenize", "/v1/models", "/v1/usage", "/metrics", "/page/live"]
)
def test_without_a_key_nothing_is_answered(serve_script: ServeScript, tmp_path: Path, path: str) -> None:
    file = tmp_path / "keys.json"
    secret = make_key(file, "valid")
    old = make_key(file, "expired", expires=datetime(2020, 1, 1, tzinfo=UTC))
    refused: list[list[tuple[str, str]]] = [
        [],
        [("authorization", secret)],
        [("authorization", f"Basic {secret}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {secret}x")],
        [("authorization", f"Bearer {secret[:-1]}")],
        [("authorization", f"Bearer {digest_of(secret)}")],
        [("authorization", f"Bearer {old}")],
        [("authorization", f"Bearer {secret}"), ("authorization", "Bearer other")],
        [("host", "localhost"), ("x-api-key", secret)],
        *([("host", host)] for host in ("x/health", "x/health?", "x/ready#", "u@x/", "")),
        [("x-forwarded-host", "x/health"), ("x-original-url", "/health"), ("x-forwarded-prefix", "/health")],
    ]

    async def scenario() -> None:
        served = await serving(serve_script, file)
        method = "POST" if path in (CHAT, "/v1/completions", "/tokenize") else "GET"
        async with client_of(served) as client:
            for headers in refused:
                answer = await client.request(method, path, json={"model": "tiny"}, headers=headers)
                assert answer.status_code == 401, headers
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/ready")).status_code == 200
        assert served.engine.core.requests == []

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ROUTES)
def test_browser_may_ask_without_a_key_whether_it_may_ask(
    serve_script: ServeScript, tmp_path: Path, path: str
) -> None:
    file = tmp_path / "keys.json"
    make_key(file, "only")

    async def scenario() -> None:
        served = await serving(serve_script, file)
        asks = {"origin": "http://elsewhere", "access-control-request-method": "POST"}
        async with client_of(served) as client:
            preflight = await client.options(path, headers=asks)
            plain = await client.options(path)
        assert (preflight.status_code, preflight.text) == (400, "Disallowed CORS origin"), "vLLM's default"
        assert plain.status_code == 405
        assert served.engine.core.requests == []

    asyncio.run(scenario())


def test_key_may_do_what_it_may(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    plain = make_key(file, "plain")
    watcher = make_key(file, "watcher", metrics=True, models=("other",))

    async def scenario() -> None:
        served = await serving(serve_script, file)
        async with client_of(served) as client:
            client.headers = with_key(plain)
            assert (await chat(client)).json()["choices"][0]["message"]["content"] == ANSWER
            assert (await client.get("/v1/models")).status_code == 200
            assert (await client.get("/metrics")).status_code == 403
            client.headers = with_key(watcher)
            assert (await client.get("/metrics")).status_code == 200
            forbidden = await chat(client)
            assert forbidden.status_code == 403
            assert "other" in forbidden.json()["error"]["message"]
            unnamed = await client.post(CHAT, json={"messages": QUESTION})
            assert unnamed.status_code == 403

    asyncio.run(scenario())


def test_requests_per_minute_with_headers_and_retry_after(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    limited, free = make_key(file, "limited", requests_per_minute=2), make_key(file, "free")

    async def scenario() -> None:
        served = await serving(serve_script, file)
        async with client_of(served) as client:
            answers = [
                await client.post(CHAT, json={"model": "tiny", "messages": QUESTION}, headers=with_key(limited))
                for _ in range(3)
            ]
            other = await client.post(CHAT, json={"messages": QUESTION}, headers=with_key(free))
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
        assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
        assert 28 <= int(answers[2].headers["retry-after"]) <= 30
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert other.status_code == 200
        assert "x-ratelimit-limit-requests" not in other.headers
        assert served.sample("malmoi_requests_total", route="chat", outcome="limited") == 1
        assert served.sample("malmoi_objective_requests_total", met="no") is None, (
            "the server has kept its promise"
        )

    asyncio.run(scenario())


def test_tokens_per_minute_are_reserved_before_and_settled_after(
    serve_script: ServeScript, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    secret = make_key(file, "limited", tokens_per_minute=300)

    async def scenario() -> None:
        pause = Pause(0)
        served = await serving(serve_script, file, before_token=pause)
        async with client_of(served) as client:
            client.headers = with_key(secret)
            running = asyncio.create_task(chat(client, max_tokens=200))
            await pause.reached.wait()
            burst = [await chat(client, max_tokens=200) for _ in range(3)]
            pause.go_on.set()
            used = (await running).json()["usage"]["total_tokens"]
            usage = await client.get("/v1/usage")
        assert [answer.status_code for answer in burst] == [429] * 3, "they were counted before they had tokens"
        left = int(usage.headers["x-ratelimit-remaining-tokens"])
        assert 300 - used <= left <= 300 - used + 10, "what has come back since"

    asyncio.run(scenario())


def test_concurrency(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = make_key(file, "limited", concurrency=1)

    async def scenario() -> None:
        pause = Pause(0)
        served = await serving(serve_script, file, before_token=pause)
        async with client_of(served) as client:
            client.headers = with_key(secret)
            running = asyncio.create_task(chat(client))
            await pause.reached.wait()
            refused = await chat(client)
            pause.go_on.set()
            assert (await running).status_code == 200
            assert (await chat(client)).status_code == 200
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")

    asyncio.run(scenario())


def test_prefixes_are_cached_for_each_key_alone(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secrets = [make_key(file, name) for name in ("one", "two")]

    async def scenario() -> None:
        served = await serving(serve_script, file)
        async with client_of(served) as client:
            for secret in [*secrets, secrets[0]]:
                answer = await client.post(CHAT, json={"messages": QUESTION}, headers=with_key(secret))
                assert answer.status_code == 200
            own = {"prompt": "서울", "cache_salt": "mine"}
            await client.post("/v1/completions", json=own, headers=with_key(secrets[0]))
            empty = await client.post(CHAT, json={}, headers=with_key(secrets[0]))
            assert empty.status_code == 400
        one, two, again, mine = [request.cache_salt for request in served.engine.core.requests]
        assert one == again != two
        assert one
        assert mine == "mine"

    asyncio.run(scenario())


def test_usage_shows_a_key_its_own(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secrets = {name: make_key(file, name) for name in ("one", "two")}

    async def scenario() -> None:
        served = await serving(serve_script, file)
        async with client_of(served) as client:

            async def usage_of(name: str) -> dict[str, object]:
                answer = await client.get("/v1/usage", headers=with_key(secrets[name]))
                document: dict[str, object] = answer.json()
                return document

            client.headers = with_key(secrets["one"])
            whole = (await chat(client)).json()["usage"]
            await chat(client, stream=True)
            await chat(client, n="many")
            one, two = await usage_of("one"), await usage_of("two")
        assert one["requests"] == {"total": 3, "ok": 2, "invalid": 1}
        assert one["prompt_tokens"] == 2 * whole["prompt_tokens"]
        assert one["completion_tokens"] == 2 * whole["completion_tokens"]
        assert one["characters"] == 2 * len(ANSWER)
        assert one["latency_s"]["time_to_first_token"]["p50"] > 0  # type: ignore[index]
        assert one["latency_s"]["request_duration"]["p99"] > 0  # type: ignore[index]
        assert two["requests"] == {"total": 0}

    asyncio.run(scenario())


def test_tokens_of_an_answer_that_is_cut_off_are_counted(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = make_key(file, "only")

    async def scenario() -> None:
        reached, never = asyncio.Event(), asyncio.Event()

        async def stop_at_fourth(index: int) -> None:
            if index == 4:
                reached.set()
                await never.wait()

        served = await serving(serve_script, file, before_token=stop_at_fourth)
        for stream in (True, False):
            reached.clear()
            request = {"model": "tiny", "messages": QUESTION, "stream": stream}
            visitor = Visitor(
                served.gate, CHAT, request, headers=[(b"authorization", f"Bearer {secret}".encode())]
            )
            await reached.wait()
            await asyncio.sleep(0.02)  # what the tokens before need on their way to the API
            visitor.gone.set()
            await visitor.served
        (account,) = served.gate._door._accounts._accounts.values()
        report = account.report(served.gate._door.since)
        assert report["completion_tokens"] == 8
        assert report["requests"] == {"total": 2, "disconnected": 2}
        assert served.engine.core.aborted == {request.request_id for request in served.engine.core.requests}

    asyncio.run(scenario())
