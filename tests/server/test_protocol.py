"""What a socket can do to the server: slow heads, slow bodies, endless heads, bodies far too large."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from server.bounds import Bounds
from server.exchange import App, Receive, Scope, Send
from server.launch import Launch, prepare
from server.loop import WATCH_INTERVAL_S, serve_gate
from server.protocol import MAX_HEAD_BYTES
from tests.server.conftest import gate_around
from tests.server.test_launch import options

pytestmark = pytest.mark.usefixtures("same_environment")
BOUNDS = Bounds(
    header_timeout_s=0.3, body_timeout_s=0.3, write_timeout_s=0.3, keep_alive_timeout_s=5, max_body_bytes=1000
)
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def polite(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers everything with 2 bytes."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def polite_around(app: App) -> App:
    """`app`, but for the lifespan."""

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (polite if scope["type"] == "lifespan" else app)(scope, receive, send)

    return both


@pytest.fixture
def launch(tiny_checkpoint: Path) -> Launch:
    return replace(prepare(options(tiny_checkpoint)), bounds=BOUNDS)


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer_to(self, *parts: bytes) -> bytes:
        """Everything that is said until the connection ends; "reset" if it ends so."""
        try:
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b"reset"


@asynccontextmanager
async def serving(launch: Launch, number: int = 1, app: App = polite) -> AsyncIterator[list[Connection]]:
    """Connections to a server."""
    gate = gate_around(app, CollectorRegistry(), BOUNDS)
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve_gate(gate, launch, announced.set_result))
    await asyncio.wait_for(announced, 10)
    host, port = launch.listener.getsockname()
    connections = [Connection(*await asyncio.open_connection(host, port)) for _ in range(number)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.writer.close()
            with suppress(ConnectionError):
                await connection.writer.wait_closed()
        gate.drain()
        await asyncio.wait_for(server, 20)


def error_of(answer: bytes) -> tuple[int, str]:
    """Status and type of an error whose head and body are as those of every other."""
    head, body = answer.split(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert re.fullmatch(r"total;dur=\d+\.\d+", headers["server-timing"])
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert status.split()[:2] == ["HTTP/1.1", str(error["code"])]
    return error["code"], error["type"]


@pytest.mark.parametrize("sent", [b"GET\r\n\r\n", b"\x16\x03\x01 hello", b"GET /\xff HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_400(launch: Launch, sent: bytes) -> None:
    async def scenario() -> None:
        async with serving(launch) as (connection,):
            assert error_of(await connection.answer_to(sent)) == (400, "BadRequestError")

    uvloop.run(scenario())


def test_other_protocols_are_answered_in_http(launch: Launch, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n"

    async def scenario() -> None:
        async with serving(launch) as (connection,):
            answer = await connection.answer_to(
                upgrade + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"ok")

    uvloop.run(scenario())
    assert caplog.records == []


@pytest.mark.parametrize("early", [MODELS + b"\r\n", MODELS, b"?", CHAT + b"Content-Length: 9\r\n\r\n{"])
def test_request_that_comes_before_the_answer_is_not_looked_at(launch: Launch, early: bytes) -> None:
    """Whatever it is; the connection ends after the answer, which says so."""
    paths: list[str] = []
    go_on = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            paths.append(scope["path"])
            await go_on.wait()
        await polite(scope, receive, send)

    async def scenario() -> None:
        async with serving(launch, app=waits) as (connection,):
            answer = asyncio.create_task(connection.answer_to(MODELS + b"\r\n" + early, early))
            await asyncio.sleep(2 * BOUNDS.header_timeout_s)
            go_on.set()
            head, body = (await answer).split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close" in head
            assert body == b"ok"
        assert paths == ["/v1/models"]

    uvloop.run(scenario())


def test_request_after_the_last_byte_of_an_answer_is_not_early(launch: Launch) -> None:
    """Though the app, as some middlewares do, says only later that it was the last."""

    async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> None:
        async with serving(launch, app=polite_around(hesitates)) as (connection,):
            for _ in range(3):
                connection.writer.write(MODELS + b"\r\n")
                answer = await asyncio.wait_for(connection.reader.readuntil(b"ok"), 10)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"connection: close" not in answer

    uvloop.run(scenario())


def test_client_that_goes_is_noticed_though_it_has_sent_more(launch: Launch) -> None:
    async def scenario() -> None:
        begun, told = asyncio.Event(), asyncio.Event()

        async def listens(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            told.set()

        async with serving(launch, app=polite_around(listens)) as (connection,):
            connection.writer.write(
                MODELS + b"\r\n" + CHAT + b"Content-Length: 1000000\r\n\r\n" + bytes(200_000)
            )
            await asyncio.wait_for(begun.wait(), 10)
            connection.writer.write(bytes(500_000))
            await connection.writer.drain()
            connection.writer.transport.abort()
            await asyncio.wait_for(told.wait(), 10)

    uvloop.run(scenario())


LARGE = 20_000_000


def unread_connection(launch: Launch) -> socket.socket:
    """To the server, on which little fits."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(launch.listener.getsockname())
    client.settimeout(10)
    return client


def read_to_the_end(client: socket.socket, pause_s: float = 0.0) -> bytes:
    """All that is left."""
    parts = []
    with suppress(ConnectionError):
        while part := client.recv(1 << 18):
            parts.append(part)
            time.sleep(pause_s)
    return b"".join(parts)


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_client_that_does_not_read_loses_its_connection(launch: Launch, kind: str) -> None:
    """And has nothing else answered on it."""
    answers: list[str] = []

    async def talks(scope: Scope, receive: Receive, send: Send) -> None:
        answers.append("begun")
        length = [] if kind == "stream" else [(b"content-length", str(LARGE).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        parts = 200 if kind == "stream" else 1
        for index in range(parts):
            body = bytes(LARGE // parts)
            await send({"type": "http.response.body", "body": body, "more_body": index < parts - 1})
        answers.append("ended")

    async def scenario() -> None:
        async with serving(launch, app=polite_around(talks)), asyncio.timeout(10):
            with unread_connection(launch) as client:
                client.sendall(MODELS + b"\r\n")
                await asyncio.sleep(0.1)
                client.sendall(MODELS + b"\r\n")
                while "ended" not in answers:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(BOUNDS.write_timeout_s + 2 * WATCH_INTERVAL_S)
                assert len(await asyncio.to_thread(read_to_the_end, client)) < LARGE
        assert answers == ["begun", "ended"]

    uvloop.run(scenario())


def test_client_that_reads_slowly_gets_all_of_its_answer(launch: Launch) -> None:
    async def scenario() -> None:
        async def talks(scope: Scope, receive: Receive, send: Send) -> None:
            length = [(b"content-length", str(LARGE).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body", "body": bytes(LARGE)})

        async with serving(launch, app=polite_around(talks)):
            with socket.create_connection(launch.listener.getsockname(), 10) as client:
                client.sendall(MODELS + b"Connection: close\r\n\r\n")
                begun = time.monotonic()
                assert len(await asyncio.to_thread(read_to_the_end, client, 0.04)) > LARGE
                assert time.monotonic() > begun + 3 * BOUNDS.write_timeout_s, "it was not slow"

    uvloop.run(scenario())


@pytest.mark.parametrize("dribble", [b"x", b"\r\n"])
def test_bytes_of_no_request_do_not_keep_a_connection(launch: Launch, dribble: bytes) -> None:
    """Of a body that nobody reads, after its answer; or of nothing."""

    async def scenario() -> None:
        async with serving(launch) as (connection,):
            length = b"Content-Length: 1000000000\r\n" if dribble == b"x" else b""
            connection.writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n")
            rest = asyncio.create_task(connection.reader.read())
            async with asyncio.timeout(5):
                while not rest.done():
                    connection.writer.write(dribble)
                    await asyncio.sleep(0.05)
            assert (await rest).startswith(b"HTTP/1.1 503 "), "it is not warm"

    uvloop.run(scenario())


def test_head_that_does_not_come_is_408_and_silence_is_ended(launch: Launch) -> None:
    async def scenario() -> None:
        async with serving(launch, 2) as (begun, silent):
            answers = asyncio.gather(begun.answer_to(b"GET /v1/models HTTP/1.1\r\nHost:"), silent.answer_to())
            late, nothing = await answers
            assert error_of(late) == (408, "RequestTimeoutError")
            assert nothing == b""

    uvloop.run(scenario())


def test_head_that_comes_byte_by_byte_is_408(launch: Launch) -> None:
    async def scenario() -> None:
        async with serving(launch) as (connection,):
            answer = asyncio.create_task(connection.reader.read())
            for byte in b"GET /v1/models HTTP/1.1\r\nHost: a.very.slow.one":
                if answer.done():
                    break
                connection.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
            assert error_of(await answer) == (408, "RequestTimeoutError")

    uvloop.run(scenario())


def test_each_request_of_a_connection_has_its_own_time(launch: Launch) -> None:
    async def scenario() -> None:
        async with serving(launch) as (connection,):
            for _ in range(3):
                connection.writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await connection.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert await connection.reader.readexactly(2) == b"ok"
                await asyncio.sleep(0.2)
            assert (await connection.answer_to(b"GET ")).startswith(b"HTTP/1.1 408 ")

    uvloop.run(scenario())


@pytest.mark.parametrize(("kept_s", "is_kept"), [(0.3, False), (30.0, True)])
def test_idle_connection_is_kept_so_long(launch: Launch, kept_s: float, is_kept: bool) -> None:
    bounds = replace(BOUNDS, keep_alive_timeout_s=kept_s)

    async def scenario() -> None:
        async with serving(replace(launch, bounds=bounds)) as (connection,):
            connection.writer.write(MODELS + b"\r\n")
            assert (await connection.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(1)
            assert connection.reader.at_eof() != is_kept

    uvloop.run(scenario())


HEAD = MODELS + b"z: "


@pytest.mark.parametrize("part", [b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
def test_head_that_is_too_large_is_431(launch: Launch, part: bytes) -> None:
    async def scenario() -> None:
        async with serving(launch, 2) as (large, endless):
            answer = await large.answer_to(HEAD + part * (MAX_HEAD_BYTES // len(part) + 1))
            assert error_of(answer) == (431, "RequestTooLargeError")
            assert (await endless.answer_to(HEAD, *[part] * 100_000))[:13] in (b"reset", b"HTTP/1.1 431 ")

    uvloop.run(scenario())


@pytest.mark.parametrize("url", [b"/v1/models", b"/" + b"y" * MAX_HEAD_BYTES])
def test_head_that_is_too_large_is_431_though_it_comes_at_once(launch: Launch, url: bytes) -> None:
    """The server reads nothing before all of it is there."""
    lines = b"x: " + b"y" * MAX_HEAD_BYTES + b"\r\n" if url == b"/v1/models" else b""
    sent = b"POST " + url + b" HTTP/1.1\r\nHost: x\r\n" + lines + b"Content-Length: 3\r\n\r\n{}\n"

    async def scenario() -> None:
        async with serving(launch):
            with socket.create_connection(launch.listener.getsockname(), 10) as client:
                client.sendall(sent)
                answer = await asyncio.to_thread(read_to_the_end, client)
                assert error_of(answer) == (431, "RequestTooLargeError")

    uvloop.run(scenario())


@pytest.mark.parametrize("part", [b"x: " + b"y" * 1000 + b"\r\n", b"x: " + b"y" * 1000, b"0" * 1000])
def test_what_stands_around_chunks_is_bounded_too(launch: Launch, part: bytes) -> None:
    """Trailers, one that has no end, and the size of a chunk."""
    begin = CHAT + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n" + (b"0\r\n" if part[:1] == b"x" else b"")

    async def scenario() -> None:
        async with serving(launch) as (connection,):
            async with asyncio.timeout(5):
                assert await connection.answer_to(begin, *[part] * 100_000) in (b"reset", b"")

    uvloop.run(scenario())


@pytest.mark.parametrize(
    "head", [b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
def test_body_that_does_not_come_is_408(launch: Launch, head: bytes) -> None:
    async def scenario() -> None:
        async with serving(launch) as (connection,):
            connection.writer.write(CHAT + head)
            answer = await connection.reader.readuntil(b"}}")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer

    uvloop.run(scenario())


def test_100_mb_are_refused_and_the_client_reads_why(launch: Launch) -> None:
    part, number = bytes(1_000_000), 100
    chunk = b"%x\r\n%b\r\n" % (len(part), part)

    async def scenario() -> None:
        async with serving(launch, 2) as (declared, chunked):
            head = CHAT + b"Content-Length: %d\r\n\r\n" % (number * len(part))
            answers = [
                await declared.answer_to(head, *[part] * number),
                await chunked.answer_to(
                    CHAT + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * number, b"0\r\n\r\n"
                ),
            ]
            for answer in answers:
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert b"The body may have 1000 bytes." in answer

    uvloop.run(scenario())


def test_client_that_asks_first_is_told_before_it_sends(launch: Launch) -> None:
    async def scenario() -> None:
        async with serving(launch) as (connection,):
            connection.writer.write(CHAT + b"Expect: 100-continue\r\nContent-Length: 100000000\r\n\r\n")
            answer = await connection.reader.readuntil(b"}}")
            assert answer.startswith(b"HTTP/1.1 413 ")

    uvloop.run(scenario())
