"""What is recorded of a request, under which labels: on a clock of the test's own."""

import random
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry

from server.life import Life, Outcome
from server.metrics import (
    LATENCY_BUCKETS_S,
    MEDIUM_TOKENS,
    PARTS_AT_ONCE,
    SHORT_TOKENS,
    Measurement,
    Metrics,
    observe_all,
    size_class,
)
from server.objective import Objective
from server.page.site import describe_live
from tests.server.conftest import sample_of
from tests.server.test_answer import event, text


class Clock:
    """Shows the times it was given, and from the last one on stands still."""

    def __init__(self, times: Iterable[float]) -> None:
        self._times = list(times)

    def __call__(self) -> float:
        return float(self._times.pop(0) if len(self._times) > 1 else self._times[0])


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def measured(registry: CollectorRegistry, times: Iterable[float], **life: object) -> Measurement:
    """A streamed chat's measurement, received at 0."""
    settings: dict[str, object] = {"route": "chat", "received_at": 0.0} | life
    objective = Objective(time_to_first_token_s=1.0, seconds_per_character=0.5, target=0.9)
    metrics = Metrics(registry, objective, clock=lambda: 0.0)
    measurement = Measurement(metrics=metrics, life=Life(**settings), clock=Clock(times))  # type: ignore[arg-type]
    measurement.reader.is_stream = True
    return measurement


def test_answer_of_more_parts_than_are_kept(registry: CollectorRegistry) -> None:
    num_parts = 2 * PARTS_AT_ONCE + 3
    measurement = measured(registry, range(1, num_parts + 2))
    for _ in range(num_parts):
        measurement.wrote(event(text("가나")))
    measurement.finish("ok")
    assert sample_of(registry, "malmoi_characters_total") == 2 * num_parts
    assert sample_of(registry, "malmoi_time_to_first_token_seconds_sum") == 1
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_count") == num_parts - 1
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_sum") == num_parts - 1
    assert sample_of(registry, "malmoi_request_duration_seconds_sum") == num_parts + 1
    life = measurement.life
    assert (life.first_text_at, life.ended_at, life.characters) == (1, num_parts + 1, 2 * num_parts)


def test_gaps_are_those_of_each_choice(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [1, 2, 11, 14, 30])
    for index in (0, 1, 0, 1):
        measurement.wrote(event(text("가", index)))
    measurement.finish("ok")
    assert sample_of(registry, "malmoi_time_to_first_token_seconds_sum") == 1
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_count") == 2
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_sum") == (11 - 1) + (14 - 2)


def test_pieces_written_together_have_no_gap(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [1, 3, 4])
    measurement.wrote(event(text("가")) + event(text("나")))
    measurement.wrote(event(text("다")))
    measurement.finish("ok")
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_count") == 1
    assert sample_of(registry, "malmoi_inter_token_latency_seconds_sum") == 2


def test_every_series_of_an_answer_bears_group_and_sizes(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [1, 2], group="staff", prompt_tokens=200, completion_tokens=5)
    measurement.life.queued_at = 0.25
    measurement.life.admitted_at = 0.5
    measurement.life.engine_queue_s = 0.125
    for _ in range(2):
        measurement.wrote(event(text("가나다")))
    measurement.finish("ok")
    labels = {"route": "chat", "group": "staff", "outcome": "ok", "prompt": "medium", "answer": "short"}
    counts = {
        name: registry.get_sample_value(f"malmoi_{name}_count", labels)
        for name in (
            *("time_to_first_token_seconds", "inter_token_latency_seconds", "request_duration_seconds"),
            *("request_queue_seconds", "seconds_per_character"),
        )
    }
    assert set(counts.values()) == {1}, counts
    assert registry.get_sample_value("malmoi_request_queue_seconds_sum", labels) == 0.25 + 0.125
    assert registry.get_sample_value("malmoi_seconds_per_character_sum", labels) == pytest.approx(2 / 6)


def test_sizes_are_classed_at_their_bounds() -> None:
    sizes = [0, 1, SHORT_TOKENS, SHORT_TOKENS + 1, MEDIUM_TOKENS, MEDIUM_TOKENS + 1]
    assert [size_class(size) for size in sizes] == ["none", "short", "short", "medium", "medium", "long"]


def test_echoed_prompt_is_not_the_models_text(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [1, 2], echoes=True)
    measurement.wrote(event(text("프롬프트와 답")))
    measurement.finish("ok")
    assert sample_of(registry, "malmoi_characters_total") is None
    assert sample_of(registry, "malmoi_seconds_per_character_count") is None
    assert sample_of(registry, "malmoi_requests_total") == 1


@pytest.mark.parametrize(
    ("first_s", "end_s", "outcome", "met"),
    [
        (0.5, 1.0, "ok", {"yes": 1}),
        (1.5, 1.6, "ok", {"no": 1}),
        (0.5, 5.0, "ok", {"no": 1}),
        (0.5, 1.0, "failed", {"no": 1}),
        (0.5, 1.0, "disconnected", {}),
    ],
)
def test_goodput_is_what_meets_the_objective(
    registry: CollectorRegistry, first_s: float, end_s: float, outcome: Outcome, met: dict[str, int]
) -> None:
    measurement = measured(registry, [first_s, end_s])
    measurement.wrote(event(text("가나다라")))
    measurement.finish(outcome)
    found = {word: sample_of(registry, "malmoi_objective_requests_total", met=word) for word in ("yes", "no")}
    assert {word: count for word, count in found.items() if count is not None} == met
    burn = registry.get_sample_value("malmoi_objective_burn_rate", {"window": "5m"})
    assert burn == pytest.approx(10.0 if "no" in met else 0.0)
    assert registry.get_sample_value("malmoi_objective_target_ratio") == 0.9


def test_routes_without_a_model_have_a_duration_and_no_more(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [1, 2], route="models")
    measurement.wrote(event(text("가")))
    assert measurement.headers() == [(b"server-timing", b"total;dur=1000.00")]
    measurement.finish("ok")
    assert sample_of(registry, "malmoi_request_duration_seconds_count", route="models") == 1
    assert sample_of(registry, "malmoi_characters_total") is None
    assert sample_of(registry, "malmoi_objective_requests_total") is None


def test_server_timing_tells_of_the_queue(registry: CollectorRegistry) -> None:
    measurement = measured(registry, [3.0])
    measurement.life.queued_at, measurement.life.admitted_at = 0.5, 1.0
    measurement.life.engine_queue_s = 0.25
    assert measurement.headers() == [(b"server-timing", b"queue;dur=750.00, total;dur=3000.00")]


def test_what_still_runs_is_seen_by_those_who_look(registry: CollectorRegistry) -> None:
    running = measured(registry, [1, 2])
    metrics = running.metrics
    waiting = Measurement(metrics=metrics, life=Life(route="chat", received_at=0.0), clock=lambda: 0.0)
    waiting.life.queued_at = 0.0
    running.life.queued_at = running.life.admitted_at = 0.0
    running.wrote(event(text("가")))
    seen = describe_live(metrics)
    assert (seen["running"], seen["waiting"]) == (1, 1)
    assert running.life.first_text_at == 1
    assert registry.get_sample_value("malmoi_requests_in_flight", {"state": "running"}) == 1
    for measurement in (running, waiting):
        measurement.finish("ok")
    seen = describe_live(metrics)
    assert (seen["running"], seen["waiting"]) == (0, 0)


class Interrupted(Life):
    """One whose reading is interrupted: just then another request begins."""

    def __getattribute__(self, name: str) -> object:
        if name == "queued_at":
            Measurement(metrics=METRICS, life=Life(route="chat", received_at=0.0), clock=float)
        return super().__getattribute__(name)


METRICS = Metrics(CollectorRegistry())


def test_requests_that_begin_while_a_thread_of_vllms_reads_the_metrics() -> None:
    Measurement(metrics=METRICS, life=Interrupted(route="chat", received_at=0.0), clock=float)
    assert METRICS.num_waiting == 0
    assert len(METRICS.in_flight) == 2


def test_many_observed_at_once_are_as_many_observed_one_by_one() -> None:
    draw = random.Random(3)
    values = [draw.lognormvariate(-3, 3) for _ in range(500)] + [*LATENCY_BUCKETS_S, 0.0, 1e9]
    found = []
    for at_once in (True, False):
        registry = CollectorRegistry()
        histogram = Metrics(registry).inter_token_latency.labels("chat", "", "ok", "none", "none")
        if at_once:
            observe_all(histogram, values)
        else:
            for value in values:
                histogram.observe(value)
        found.append(
            {
                (sample.name, sample.labels.get("le")): pytest.approx(sample.value)
                for family in registry.collect()
                for sample in family.samples
                if "inter_token" in sample.name and not sample.name.endswith("_created")
            }
        )
    assert len(found[0]) > len(LATENCY_BUCKETS_S)
    assert found[0] == found[1]
