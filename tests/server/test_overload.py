"""More work than can be done: who is refused, when, and that whatever has begun with 200 is an answer."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from vllm.v1.engine import FinishReason

from server.bounds import Bounds
from server.exchange import Receive, Scope, Send
from server.gate import TOKENIZING, TOKENIZING_ROOM
from server.keys import KeyFile
from server.slots import FIRST_GUESS_S, REMEMBERED
from tests.server.conftest import Served, ServeScript, gate_around, sample_of
from tests.server.test_gate import ANSWER, CHAT, QUESTION, chat, client_of, streamed_text, token_ids
from tests.server.test_keys import make_key
from tests.server.visitor import Visitor, settle
from tests.support.scripted_engine import Pause, Script

REQUEST = {"model": "tiny", "messages": QUESTION}
STREAM = REQUEST | {"stream": True}


@dataclass
class Busy:
    """A server whose engine waits before the second token of every answer until `go_on` is set."""

    served: Served
    go_on: asyncio.Event
    visitors: list[Visitor] = field(default_factory=list)

    async def visit(self, body: object = STREAM, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Visitor:
        visitor = Visitor(self.served.gate, CHAT, body, headers=headers)
        self.visitors.append(visitor)
        await settle()
        return visitor

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def running(self, number: int) -> None:
        """Returns when the engine has got so many requests."""
        await self.until(lambda: len(self.served.engine.core.requests) >= number)

    async def finish(self) -> None:
        self.go_on.set()
        await asyncio.gather(*(visitor.served for visitor in self.visitors))


async def busy(serve_script: ServeScript, bounds: Bounds, keys: KeyFile | None = None) -> Busy:
    pause = Pause(1)
    served = await serve_script(Script(token_ids=[]), bounds, keys)
    served.engine.core.script = Script(token_ids=token_ids(served, ANSWER), before_token=pause)
    return Busy(served, pause.go_on)


def test_burst_gets_exactly_what_there_is_and_honest_refusals(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=3, max_waiting=2))
        visitors = [Visitor(server.served.gate, CHAT, STREAM) for _ in range(20)]
        server.visitors = visitors
        await server.running(3)
        await server.until(lambda: sum(visitor.served.done() for visitor in visitors) == 15)
        refused = [visitor for visitor in visitors if visitor.served.done()]
        for visitor in refused:
            assert visitor.status == 429
            assert int(visitor.headers["retry-after"]) >= 1
            assert visitor.json()["error"]["type"] == "OverloadedError"
            assert visitor.headers["content-type"] == "application/json"
        assert len(server.served.engine.core.requests) == 3
        await server.finish()
        answered = [visitor for visitor in visitors if visitor not in refused]
        assert [streamed_text(visitor.body.decode()) for visitor in answered] == [ANSWER] * 5
        assert [visitor.status for visitor in answered] == [200] * 5
        labels = {"route": "chat"}
        assert server.served.sample("malmoi_requests_total", **labels, outcome="ok") == 5
        assert server.served.sample("malmoi_requests_total", **labels, outcome="refused") == 15
        assert server.served.sample("malmoi_requests_total", **labels, outcome="failed") is None

    asyncio.run(scenario())


def test_no_byte_of_an_answer_is_written_while_it_waits(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1, max_waiting=1))
        first = await server.visit()
        await server.running(1)
        second = await server.visit()
        await asyncio.sleep(0.05)
        assert second.sent == []
        await server.finish()
        assert (first.status, second.status) == (200, 200)

    asyncio.run(scenario())


def test_wait_is_bounded(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1, max_waiting=1, queue_timeout_s=0.1))
        await server.visit()
        await server.running(1)
        waiting = await server.visit()
        await waiting.served
        assert waiting.status == 429
        assert "0.1 s" in waiting.json()["error"]["message"]
        assert "retry-after" in waiting.headers
        assert server.served.gate.slots.num_waiting == 0
        await server.finish()

    asyncio.run(scenario())


def test_turns_are_fair_between_keys(serve_script: ServeScript, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    greedy = (b"authorization", f"Bearer {make_key(file, 'greedy')}".encode())
    modest = (b"authorization", f"Bearer {make_key(file, 'modest')}".encode())

    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=2, max_waiting=8), KeyFile(file))
        many = [await server.visit(headers=(greedy,)) for _ in range(8)]
        few = await server.visit(headers=(modest,))
        await server.running(2)
        many[0].gone.set()
        await server.running(3)
        assert few.sent, "the next turn was not of the key that has most"
        assert sum(bool(visitor.sent) for visitor in many) == 2
        await server.finish()
        assert streamed_text(few.body.decode()) == ANSWER

    asyncio.run(scenario())


def test_n_answers_take_n_slots(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=3, max_waiting=0))
        await server.visit(STREAM | {"n": 2})
        await server.running(2)
        refused = await server.visit(STREAM | {"n": 2})
        assert refused.status == 429
        alone = await server.visit()
        await server.running(3)
        assert server.served.gate.slots.num_running == 3
        too_many = await server.visit(STREAM | {"n": 4})
        assert too_many.status == 400
        assert "3" in too_many.json()["error"]["message"]
        await server.finish()
        assert streamed_text(alone.body.decode()) == ANSWER
        assert server.served.gate.slots.num_running == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_is_aborted_and_its_slot_is_free(serve_script: ServeScript, stream: bool) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1, max_waiting=2))
        core = server.served.engine.core
        running = await server.visit(REQUEST | {"stream": stream})
        await server.running(1)
        waiting, last = await server.visit(), await server.visit()
        waiting.gone.set()
        await waiting.served
        running.gone.set()
        await running.served
        assert core.aborted == {core.requests[0].request_id}
        await server.running(2)
        await server.finish()
        assert streamed_text(last.body.decode()) == ANSWER
        assert len(core.requests) == 2, "one that had gone was never begun"
        sample = server.served.sample
        assert sample("malmoi_requests_total", route="chat", outcome="disconnected") == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_deadline(serve_script: ServeScript, stream: bool) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(request_timeout_s=1.0))
        core = server.served.engine.core
        visitor = await server.visit(REQUEST | {"stream": stream})
        await visitor.served
        assert core.aborted == {core.requests[0].request_id}
        assert visitor.is_whole
        if stream:
            assert visitor.status == 200, "it had begun"
            *_, error, done = visitor.body.decode().strip().split("\n\n")
            assert json.loads(error.removeprefix("data: "))["error"]["code"] == 504
            assert done == "data: [DONE]"
        else:
            assert (visitor.status, visitor.json()["error"]["code"]) == (504, 504)
        assert server.served.sample("malmoi_requests_total", route="chat", outcome="failed") == 1
        await server.finish()

    asyncio.run(scenario())


def test_draining_refuses_who_waits_and_finishes_who_runs(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1, max_waiting=4))
        running = await server.visit()
        await server.running(1)
        waiting = [await server.visit() for _ in range(3)]
        server.served.gate.drain()
        await settle()
        assert [visitor.status for visitor in waiting] == [503] * 3
        assert all("retry-after" in visitor.headers for visitor in waiting)
        await server.finish()
        assert streamed_text(running.body.decode()) == ANSWER

    asyncio.run(scenario())


def test_engine_that_dies_is_a_503_to_those_who_wait(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1, max_waiting=4))
        await server.visit(REQUEST)
        await server.running(1)
        waiting = [await server.visit() for _ in range(3)]
        server.served.engine.core.die()
        await asyncio.gather(*(visitor.served for visitor in server.visitors))
        assert [visitor.status for visitor in waiting] == [503] * 3
        assert server.visitors[0].status == 500

    asyncio.run(scenario())


def test_error_that_a_stream_begins_with_is_its_status(serve_script: ServeScript) -> None:
    """vLLM has sent 200 by then, for it finds out only when it asks the engine."""

    async def scenario() -> None:
        served = await serve_script(Script(token_ids=[]))

        async def die(index: int) -> None:
            served.engine.core.die()

        served.engine.core.script = Script(token_ids=token_ids(served, ANSWER), before_token=die)
        async with client_of(served) as client:
            answer = await chat(client, stream=True)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == 500
        assert served.sample("malmoi_requests_total", route="chat", outcome="failed") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "status"), [({"structured_outputs": {"grammar": "root ::= root"}}, 400), ({}, 500)]
)
def test_schema_that_no_text_fits_is_the_requests_fault(
    serve_script: ServeScript, stream: bool, fields: dict[str, object], status: int
) -> None:
    async def scenario() -> None:
        served = await serve_script(Script(token_ids=[]))
        served.engine.core.script = Script(token_ids=[0], finish_reason=FinishReason.ERROR)
        async with client_of(served) as client:
            answer = await chat(client, stream=stream, **fields)
        assert answer.status_code == status
        assert ("No text fits" in answer.json()["error"]["message"]) == (status == 400)

    asyncio.run(scenario())


async def never_called(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the gate was to refuse it")


def test_deadline_is_kept_in_the_queue() -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        gate = gate_around(never_called, registry, Bounds(request_timeout_s=0.1))
        gate.slots.ask("", gate.slots.capacity)
        visitor = Visitor(gate, CHAT, REQUEST)
        await asyncio.wait_for(visitor.served, 10)
        assert (visitor.status, visitor.json()["error"]["code"]) == (504, 504)
        assert gate.slots.num_waiting == 0
        assert sample_of(registry, "malmoi_requests_total", route="chat", outcome="failed") == 1

    asyncio.run(scenario())


def test_tokenizing_is_bounded_and_takes_no_slot_of_answers() -> None:
    async def scenario() -> None:
        go_on, num_running = asyncio.Event(), 0

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal num_running
            num_running += 1
            assert num_running <= TOKENIZING
            await go_on.wait()
            num_running -= 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        gate = gate_around(app, CollectorRegistry())
        paths = ["/tokenize", "/detokenize"] * ((TOKENIZING + TOKENIZING_ROOM) // 2 + 1)
        visitors = [Visitor(gate, path, {"prompt": "가"}) for path in paths]
        await settle()
        refused = [visitor for visitor in visitors if visitor.served.done()]
        assert [visitor.status for visitor in refused] == [429] * 2
        assert f"{TOKENIZING} of {TOKENIZING} requests run" in refused[0].json()["error"]["message"]
        assert int(refused[0].headers["retry-after"]) >= 1
        assert gate.slots.num_running == 0
        go_on.set()
        await asyncio.gather(*(visitor.served for visitor in visitors))
        assert [visitor.status for visitor in visitors if visitor not in refused] == [200] * (len(paths) - 2)

    asyncio.run(scenario())


def test_retry_after_does_not_go_by_what_was_refused(serve_script: ServeScript) -> None:
    """Though vLLM refuses it, in a slot."""

    async def scenario() -> None:
        server = await busy(serve_script, Bounds(max_running=1))
        slots = server.served.gate.slots
        await server.visit(REQUEST)
        await server.running(1)
        await asyncio.sleep(0.3)
        await server.finish()
        measured_s = slots.retry_after_s()
        assert 0.3 < measured_s < FIRST_GUESS_S
        for _ in range(REMEMBERED):
            await (await server.visit({"messages": [{"role": "robot", "content": "?"}]})).served
        assert {visitor.status for visitor in server.visitors[1:]} == {400}
        assert slots.retry_after_s() == measured_s

    asyncio.run(scenario())


@pytest.mark.parametrize("is_declared", [True, False])
def test_body_that_is_too_large_is_refused_and_read_to_its_end(is_declared: bool) -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        gate = gate_around(never_called, registry, Bounds(max_body_bytes=1000))
        headers = () if is_declared else ((b"transfer-encoding", b"chunked"),)
        visitor = Visitor(gate, CHAT, parts=[b"x" * 400] * 5, headers=headers)
        await visitor.served
        assert visitor.status == 413
        assert "1000 bytes" in visitor.json()["error"]["message"]
        assert visitor.headers["connection"] == "close"
        assert visitor.is_whole
        assert visitor._messages == [], "else the client could not read why"
        assert sample_of(registry, "malmoi_requests_total", route="chat", outcome="invalid") == 1

    asyncio.run(scenario())


def test_body_that_does_not_come_is_408() -> None:
    async def scenario() -> None:
        gate = gate_around(never_called, CollectorRegistry(), Bounds(body_timeout_s=0.05))
        visitor = Visitor(gate, CHAT, parts=[b"{"], headers=[(b"transfer-encoding", b"chunked")])
        visitor._messages[0]["more_body"] = True
        await settle()
        await asyncio.sleep(0.1)
        assert visitor.status == 408
        visitor.gone.set()
        await visitor.served
        assert gate.num_running == 0

    asyncio.run(scenario())


def test_client_that_goes_while_it_sends_its_body_is_forgotten() -> None:
    async def scenario() -> None:
        registry = CollectorRegistry()
        gate = gate_around(never_called, registry)
        visitor = Visitor(gate, CHAT, parts=[b"{"])
        visitor._messages[0]["more_body"] = True
        visitor.gone.set()
        await visitor.served
        assert visitor.sent == []
        assert sample_of(registry, "malmoi_requests_total", route="chat", outcome="disconnected") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/metrics", "GET"),
        ("PUT", "/health", "GET, HEAD"),
    ],
)
def test_other_methods_are_405_and_told(method: str, path: str, allowed: str) -> None:
    async def scenario() -> None:
        gate = gate_around(never_called, CollectorRegistry())
        transport = httpx.ASGITransport(app=gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://gate") as client:
            answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)

    asyncio.run(scenario())


def test_promises_hold_through_a_storm(serve_script: ServeScript) -> None:
    """Clients that come, leave and stay: every answer is whole or refused, and at the end nothing is held."""

    async def scenario() -> None:
        served = await serve_script(
            Script(token_ids=[]), Bounds(max_running=3, max_waiting=5, queue_timeout_s=5)
        )

        async def pause(index: int) -> None:
            await asyncio.sleep(0.001 if index % 5 == 0 else 0)

        served.engine.core.script = Script(token_ids=token_ids(served, ANSWER), before_token=pause)

        async def come(number: int) -> Visitor:
            await asyncio.sleep(number * 0.002)
            visitor = Visitor(served.gate, CHAT, STREAM | {"n": 1 + number % 2})
            if number % 7 == 3:
                await asyncio.sleep(0.001 * (number % 11))
                visitor.gone.set()
            await visitor.served
            return visitor

        visitors = await asyncio.gather(*(come(number) for number in range(120)))
        for number, visitor in enumerate(visitors):
            if visitor.gone.is_set():
                continue
            assert visitor.is_whole
            assert visitor.status in (200, 429)
            if visitor.status == 200 and number % 2 == 0:
                assert streamed_text(visitor.body.decode()) == ANSWER
        assert {visitor.status for visitor in visitors} >= {200, 429}
        assert (served.gate.slots.num_running, served.gate.slots.num_waiting, served.gate.num_running) == (
            0,
            0,
            0,
        )
        assert served.engine.output_processor.get_num_unfinished_requests() == 0

    asyncio.run(scenario())
