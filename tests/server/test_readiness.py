"""When the server says that it is ready: on a clock of the test's own, and with an engine that stops."""

import asyncio
from collections.abc import Callable, Coroutine

import httpx
import pytest

from server.app import build_gate, warm_up
from server.bounds import Bounds
from server.life import LIFE, Life
from server.readiness import ASLEEP_S, GIVE_UP_FACTOR, IDLE_S, INTERVAL_S, STALLED, Readiness
from tests.server.conftest import ServeScript
from tests.server.test_gate import CHAT, QUESTION, answering
from tests.support.scripted_engine import Pause

BOUND_S = 5.0


class Engine:
    """Counts its steps as told; what proves it waits for the next one. Watched on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.num_steps = 0
        self.num_requests = 0
        self.proofs: list[asyncio.Future[None]] = []
        self.proved_for: list[Life | None] = []
        self.readiness = Readiness(
            num_steps=lambda: self.num_steps,
            has_work=lambda: self.num_requests > 0,
            prove=self.prove,
            stall_timeout_s=BOUND_S,
            clock=lambda: self.now,
        )

    async def prove(self) -> None:
        self.proved_for.append(LIFE.get())
        self.proofs.append(asyncio.get_running_loop().create_future())
        self.num_requests += 1
        await self.proofs[-1]

    def step(self) -> None:
        """Finishes the proofs that are asked for."""
        self.num_steps += 1
        for proof in self.proofs:
            if not proof.done():
                proof.set_result(None)
                self.num_requests -= 1

    def die_of_proof(self) -> None:
        self.proofs[-1].set_exception(RuntimeError("the engine is dead"))
        self.num_requests -= 1

    async def wait(self, duration_s: float) -> str | None:
        """What is the matter after so long, in which it was looked at regularly."""
        until = self.now + duration_s
        while self.now < until:
            self.now += INTERVAL_S
            self.readiness.problem()
            for _ in range(3):  # what is done meanwhile
                await asyncio.sleep(0)
        return self.readiness.problem()


def run(scenario: Callable[[Engine], Coroutine[None, None, None]]) -> None:
    """Runs it with an engine of which, in the end, nothing is asked any more."""

    async def whole() -> None:
        engine = Engine()
        await scenario(engine)
        engine.step()
        await engine.wait(INTERVAL_S)

    asyncio.run(whole())


def test_work_without_a_step_stalls_after_the_bound_and_a_step_clears_it() -> None:
    async def scenario(engine: Engine) -> None:
        engine.num_requests = 1
        assert engine.readiness.problem() is None
        assert await engine.wait(BOUND_S) is None
        assert await engine.wait(INTERVAL_S) == STALLED
        assert await engine.wait((GIVE_UP_FACTOR - 1) * BOUND_S - INTERVAL_S) == STALLED
        found = [engine.readiness.is_hung]
        await engine.wait(INTERVAL_S)
        found.append(engine.readiness.is_hung)
        engine.step()
        assert await engine.wait(INTERVAL_S) is None
        found.append(engine.readiness.is_hung)
        assert found == [False, True, False]
        assert await engine.wait(BOUND_S + INTERVAL_S) == STALLED, "the next step is owed from then on"

    run(scenario)


def test_steps_that_go_on_are_never_a_stall() -> None:
    async def scenario(engine: Engine) -> None:
        engine.num_requests = 1
        for _ in range(100):
            assert await engine.wait(BOUND_S - INTERVAL_S) is None
            engine.step()

    run(scenario)


def test_idle_engine_is_asked_for_a_proof_and_stalls_without_one() -> None:
    async def scenario(engine: Engine) -> None:
        assert await engine.wait(IDLE_S) is None
        assert engine.proofs == []
        await engine.wait(INTERVAL_S)
        assert len(engine.proofs) == 1
        engine.step()
        assert await engine.wait(IDLE_S) is None
        assert len(engine.proofs) == 1
        assert await engine.wait(BOUND_S) is None
        assert await engine.wait(3 * INTERVAL_S) == STALLED
        assert len(engine.proofs) == 2, "one at a time"

    run(scenario)


def test_proof_is_no_part_of_the_request_that_found_it_wanting() -> None:
    async def scenario(engine: Engine) -> None:
        await engine.wait(IDLE_S)
        LIFE.set(Life(route="chat", received_at=0.0))
        engine.now += INTERVAL_S
        assert not engine.readiness.is_hung
        await asyncio.sleep(0)
        assert engine.proved_for == [None]

    run(scenario)


def test_work_taken_back_from_a_stopped_engine_does_not_hide_it() -> None:
    """Clients that give up before the bound, one after the other."""

    async def scenario(engine: Engine) -> None:
        engine.num_requests = 1
        assert await engine.wait(BOUND_S - INTERVAL_S) is None
        engine.num_requests = 0
        assert await engine.wait(INTERVAL_S) is None
        assert len(engine.proofs) == 1, "the step that it owes is asked for"
        assert await engine.wait(2 * INTERVAL_S) == STALLED

    run(scenario)


def test_an_engine_that_dies_of_the_proof_leaves_the_watch_going() -> None:
    async def scenario(engine: Engine) -> None:
        await engine.wait(IDLE_S + INTERVAL_S)
        engine.die_of_proof()
        assert await engine.wait(BOUND_S + INTERVAL_S) == STALLED
        assert len(engine.proofs) == 2

    run(scenario)


def test_time_in_which_the_server_itself_was_stopped_does_not_count() -> None:
    async def scenario(engine: Engine) -> None:
        engine.num_requests = 1
        assert engine.readiness.problem() is None
        assert await engine.wait(BOUND_S - INTERVAL_S) is None
        engine.now += 100 * BOUND_S + ASLEEP_S
        assert not engine.readiness.is_hung
        assert engine.readiness.problem() is None
        assert await engine.wait(2 * INTERVAL_S) == STALLED

    run(scenario)


@pytest.mark.parametrize("is_asked", [True, False])
def test_an_engine_that_stops_turns_ready_503_and_back(serve_script: ServeScript, is_asked: bool) -> None:
    """vLLM's real client, watched as the server does it; its core stops in the middle of an answer, or idle."""

    async def scenario() -> None:
        pause = Pause(1)
        served = await answering(serve_script, "서울", before_token=pause)
        engine, metrics = served.engine, served.gate._metrics
        readiness = Readiness(
            num_steps=lambda: metrics.live.num_steps,
            has_work=lambda: engine.get_num_unfinished_requests() > 0,
            prove=lambda: warm_up(engine),
            stall_timeout_s=0.2,
            idle_s=0.1,
        )
        gate = build_gate(served.gate._app, engine, metrics, Bounds(), None, readiness)
        gate.is_warm = True
        transport = httpx.ASGITransport(app=gate)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://gate") as client,
            readiness.watching(),
        ):

            async def becomes(status: int) -> str:
                async with asyncio.timeout(10):
                    while (answer := await client.get("/ready")).status_code != status:
                        await asyncio.sleep(0.02)
                    while served.sample("malmoi_ready") != (status == 200):
                        await asyncio.sleep(0.02)
                return str(answer.json()["status"])

            assert await becomes(200) == "ok"
            request = {"model": "tiny", "messages": QUESTION}
            work = asyncio.create_task(client.post(CHAT, json=request)) if is_asked else None
            assert await becomes(503) == STALLED
            assert (await client.get("/health")).status_code == 200
            pause.go_on.set()
            assert await becomes(200) == "ok"
            if work:
                assert (await work).status_code == 200

    asyncio.run(scenario())
