"""What a socket can do to the server: slow heads, slow bodies, endless heads, bodies far too large."""

import asyncio
import json
import re
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
from server.loop import serve_gate
from server.protocol import MAX_HEAD_BYTES
from tests.server.conftest import gate_around
from tests.server.test_launch import options

pytestmark = pytest.mark.usefixtures("same_environment")
BOUNDS = Bounds(header_timeout_s=0.3, body_timeout_s=0.3, max_body_bytes=1000)
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


def test_nothing_is_said_in_the_middle_of_an_answer(launch: Launch) -> None:
    """While one is written, the head of the next request does not come."""

    async def begins(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await polite(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def scenario() -> None:
        async with serving(launch, app=begins) as (connection,):
            answer = await connection.answer_to(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET ")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"begun\r\n")

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


HEAD = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nz: "


@pytest.mark.parametrize("part", [b"x: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
def test_head_that_is_too_large_is_431(launch: Launch, part: bytes) -> None:
    async def scenario() -> None:
        async with serving(launch, 2) as (large, endless):
            answer = await large.answer_to(HEAD + part * (MAX_HEAD_BYTES // len(part) + 1))
            assert error_of(answer) == (431, "RequestTooLargeError")
            assert (await endless.answer_to(HEAD, *[part] * 100_000))[:13] in (b"reset", b"HTTP/1.1 431 ")

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
