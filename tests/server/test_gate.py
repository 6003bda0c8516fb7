"""The gate around vLLM's real app: what exists, what is refused, what is measured."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry
from vllm.v1.engine import FinishReason

from malmoi.chat import Message as Turn
from malmoi.chat import render
from server.app import describe_api
from server.exchange import RECEIVED_AT, Message, Receive, Scope, Send
from server.page.site import CARD, FILES, LIVE
from server.routes import DOCUMENT, HEALTH, ROUTES, USAGE
from tests.server.conftest import Served, ServeScript, gate_around, sample_of
from tests.support.scripted_engine import Pause, Script

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "수도는?"}]


@asynccontextmanager
async def client_of(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=served.gate)
    async with httpx.AsyncClient(transport=transport, base_url="http://gate") as client:
        yield client


def token_ids(served: Served, text: str) -> list[int]:
    """The ids of a text, and eos."""
    tokenizer = served.engine.renderer.get_tokenizer()
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


async def answering(serve_script: ServeScript, text: str, **script: object) -> Served:
    served = await serve_script(Script(token_ids=[]))
    served.engine.core.script = Script(token_ids=token_ids(served, text), **script)  # type: ignore[arg-type]
    return served


async def chat(client: httpx.AsyncClient, **request: object) -> httpx.Response:
    return await client.post(CHAT, json={"model": "tiny", "messages": QUESTION} | request)


def stream_events(body: str) -> list[dict[str, object]]:
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def streamed_text(body: str) -> str:
    deltas = [choice["delta"] for event in stream_events(body) for choice in event["choices"]]  # type: ignore[attr-defined]
    return "".join(delta.get("content") or "" for delta in deltas)


async def step(index: int) -> None:
    """Long enough for each token to be a step of its own."""
    await asyncio.sleep(0.001)


ANSWER = "대한민국의 수도는 서울입니다. 똠방각하 🙂"


def test_answer_is_same_streamed_and_whole(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        async with client_of(served) as client:
            whole = (await chat(client)).json()
            streamed = await chat(client, stream=True, stream_options={"include_usage": True})
        assert whole["choices"][0]["message"]["content"] == ANSWER
        assert streamed_text(streamed.text) == ANSWER
        assert "�" not in streamed.text
        num_tokens = len(served.engine.core.script.token_ids)
        assert num_tokens > len(ANSWER), "rare syllables and emoji are several byte tokens here"
        usage = stream_events(streamed.text)[-1]["usage"]
        assert {name: count for name, count in whole["usage"].items() if count is not None} == usage
        assert usage["completion_tokens"] == num_tokens

    asyncio.run(scenario())


def test_served_prompt_is_the_template_with_one_bos(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        async with client_of(served) as client:
            await chat(client)
            tokenized = await client.post("/tokenize", json={"model": "tiny", "messages": QUESTION})
        tokenizer = served.engine.renderer.get_tokenizer()
        prompt = render([Turn("user", "수도는?")], eos="</s>", bos="<s>", add_generation_prompt=True)
        expected = tokenizer.encode(prompt, add_special_tokens=False)
        assert expected.count(tokenizer.bos_token_id) == 1
        assert served.engine.core.requests[0].prompt_token_ids == expected
        assert tokenized.json()["tokens"] == expected

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "path",
    ["/invocations", "/docs", "/redoc", "/version", "/load", "/ping", "/v1/embeddings", "/v1/responses",
     "/v1/messages", "/v1/chat/completions/", "//v1/chat/completions", "/metrics/x", "/health/", "/x"],
)  # fmt: skip
def test_what_is_not_on_the_list_does_not_exist(serve_script: ServeScript, path: str) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        async with client_of(served) as client:
            for method in ("GET", "POST"):
                response = await client.request(method, path, json={"model": "tiny", "messages": QUESTION})
                assert response.status_code == 404, method
                assert response.json()["error"]["code"] == 404
        assert served.engine.core.requests == []
        assert served.sample("malmoi_requests_total", route="other", outcome="invalid") == 2

    asyncio.run(scenario())


def test_every_route_of_vllm_is_classified(serve_script: ServeScript) -> None:
    """A route that a new vLLM brings must be let in or kept out by a person, not by accident."""

    async def scenario() -> None:
        served = await answering(serve_script, "네")
        app = served.gate._app
        paths = {getattr(route, "path", None) for route in app.routes}  # type: ignore[attr-defined]
        assert paths == KEPT_OUT | LET_IN

    asyncio.run(scenario())


OURS = {USAGE, *FILES, CARD, LIVE}
LET_IN = {*ROUTES, HEALTH} - OURS - {DOCUMENT}
KEPT_OUT = {
    *("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/version", "/load", "/ping"),
    *("/invocations", "/generative_scoring", "/inference/v1/generate", "/inference/v1/abort_requests"),
    *("/is_scaling_elastic_ep", "/scale_elastic_ep", "/kv_event_sources", "/v1/systemone"),
    *("/v1/chat/completions/batch", "/v1/chat/completions/render", "/v1/chat/completions/derender"),
    *("/v1/completions/render", "/v1/completions/derender"),
    *("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/render"),
    *("/v1/responses", "/v1/responses/render", "/v1/responses/{response_id}"),
    "/v1/responses/{response_id}/cancel",
}


def test_document_tells_of_what_is_let_in(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        served.gate.document = describe_api(served.gate._app)  # type: ignore[arg-type]
        async with client_of(served) as client:
            document = (await client.get(DOCUMENT)).json()
        assert set(document["paths"]) == {*ROUTES} - OURS - {DOCUMENT}
        assert list(document["paths"][CHAT]) == ["post"]

    asyncio.run(scenario())


def test_bad_request_is_vllms_own_400(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        async with client_of(served) as client:
            broken = await client.post(CHAT, content=b"{", headers={"content-type": "application/json"})
            unknown_model = await chat(client, model="other")
            bad_role = await chat(client, messages=[{"role": "robot", "content": "?"}])
        assert broken.status_code == 400
        assert unknown_model.status_code == 404
        assert bad_role.status_code == 400
        assert "robot" in bad_role.json()["error"]["message"]
        assert served.sample("malmoi_requests_total", route="chat", outcome="invalid") == 3

    asyncio.run(scenario())


def test_characters_and_latencies_are_counted_by_route_and_outcome(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER, queued_s=0.25, before_token=step)
        async with client_of(served) as client:
            streamed = await chat(client, stream=True)
            await chat(client)
            await client.post("/v1/completions", json={"model": "tiny", "prompt": "서울", "stream": True})
        num_texts = sum(bool(e["choices"][0]["delta"].get("content")) for e in stream_events(streamed.text))  # type: ignore[index]
        chats = {"route": "chat", "outcome": "ok"}
        completions = {"route": "completions", "outcome": "ok"}
        assert served.sample("malmoi_characters_total", **chats) == 2 * len(ANSWER)
        assert served.sample("malmoi_characters_total", **completions) == len(ANSWER)
        assert served.sample("malmoi_requests_total", **chats) == 2
        assert served.sample("malmoi_request_duration_seconds_count", **chats) == 2
        assert served.sample("malmoi_time_to_first_token_seconds_count", **chats) == 1
        assert served.sample("malmoi_inter_token_latency_seconds_count", **chats) == num_texts - 1
        assert served.sample("malmoi_seconds_per_character_count", **chats) == 2
        assert served.sample("malmoi_request_queue_seconds_sum", **chats) == pytest.approx(0.5, abs=0.05)
        assert served.sample("malmoi_request_queue_seconds_sum", **completions) == pytest.approx(0.25, abs=0.05)

    asyncio.run(scenario())


def test_time_to_first_token_counts_from_the_stamp_of_the_first_byte(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        body = json.dumps({"model": "tiny", "messages": QUESTION, "stream": True}).encode()

        async def stamped(scope, receive, send):  # type: ignore[no-untyped-def]
            await served.gate(dict(scope) | {RECEIVED_AT: time.perf_counter() - 7}, receive, send)

        transport = httpx.ASGITransport(app=stamped)
        async with httpx.AsyncClient(transport=transport, base_url="http://gate") as client:
            await client.post(CHAT, content=body, headers={"content-type": "application/json"})
        labels = {"route": "chat", "outcome": "ok"}
        total = served.sample("malmoi_time_to_first_token_seconds_sum", **labels)
        assert total is not None
        assert total >= 7

    asyncio.run(scenario())


def test_a_dead_engine_turns_both_probes_503(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        async def die_at_second(index: int) -> None:
            if index == 1:
                served.engine.core.die()

        served = await answering(serve_script, ANSWER, before_token=die_at_second)
        async with client_of(served) as client:
            assert (await client.get("/health")).status_code == 200
            streamed = await chat(client, stream=True)
            assert [(await client.get(path)).status_code for path in ("/health", "/ready")] == [503, 503]
            refused = await chat(client)
        assert '"error"' in streamed.text
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert served.sample("malmoi_requests_total", route="chat", outcome="failed") == 1
        assert served.sample("malmoi_requests_total", route="chat", outcome="refused") == 1

    asyncio.run(scenario())


def test_draining_refuses_new_work_and_not_ready_but_healthy(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        pause = Pause(1)
        served = await answering(serve_script, ANSWER, before_token=pause)
        async with client_of(served) as client:
            running = asyncio.create_task(chat(client, stream=True))
            await pause.reached.wait()
            served.gate.drain()
            refused = await chat(client)
            probes = [(await client.get(path)).status_code for path in ("/health", "/ready", "/v1/models")]
            assert served.gate.num_running == 1
            pause.go_on.set()
            answer = await running
            assert served.gate.num_running == 0
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["type"] == "ServiceUnavailableError"
        assert probes == [200, 503, 200]
        assert streamed_text(answer.text) == ANSWER

    asyncio.run(scenario())


def test_not_ready_until_warm(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "네")
        served.gate.is_warm = False
        async with client_of(served) as client:
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200
            assert (await client.post("/health")).status_code == 405

    asyncio.run(scenario())


def test_length_cut_is_a_finished_answer(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "서울", finish_reason=FinishReason.LENGTH)
        async with client_of(served) as client:
            whole = await chat(client)
        assert whole.json()["choices"][0]["finish_reason"] == "length"
        assert served.sample("malmoi_requests_total", route="chat", outcome="ok") == 1

    asyncio.run(scenario())


def test_echoed_prompts_are_not_counted(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "서울")
        request = {"model": "tiny", "prompt": "대한민국의 수도는", "max_tokens": 9}
        async with client_of(served) as client:
            echoed = await client.post("/v1/completions", json=request | {"echo": True})
            assert echoed.json()["choices"][0]["text"] == "대한민국의 수도는서울"
            labels = {"route": "completions", "outcome": "ok"}
            assert served.sample("malmoi_requests_total", **labels) == 1
            assert served.sample("malmoi_characters_total", **labels) is None
            await client.post("/v1/completions", json=request | {"echo": False})
        assert served.sample("malmoi_characters_total", **labels) == len("서울")

    asyncio.run(scenario())


def test_gaps_of_two_choices_are_not_mixed(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER, before_token=step)
        async with client_of(served) as client:
            streamed = await chat(client, stream=True, n=2)
        choices = [event["choices"][0] for event in stream_events(streamed.text)]  # type: ignore[index]
        indexes = [choice["index"] for choice in choices if choice["delta"].get("content")]
        assert set(indexes) == {0, 1}
        labels = {"route": "chat", "outcome": "ok"}
        assert served.sample("malmoi_characters_total", **labels) == 2 * len(ANSWER)
        assert served.sample("malmoi_inter_token_latency_seconds_count", **labels) == len(indexes) - 2

    asyncio.run(scenario())


@pytest.mark.parametrize(("client_goes", "outcome"), [(False, "failed"), (True, "disconnected")])
def test_a_stream_that_breaks_off_has_failed_unless_the_client_went(client_goes: bool, outcome: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        if client_goes:
            await receive()
        raise RuntimeError("in the middle of a stream")

    messages: list[Message] = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        pass

    registry = CollectorRegistry()
    gate = gate_around(app, registry)
    scope = {"type": "http", "path": CHAT, "method": "POST", "headers": [(b"content-length", b"2")]}
    with pytest.raises(RuntimeError, match="in the middle"):
        asyncio.run(gate(scope, receive, send))
    assert sample_of(registry, "malmoi_requests_total", route="chat", outcome=outcome) == 1
    assert gate.num_running == 0
