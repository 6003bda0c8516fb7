"""Alerts, dashboard and runbook ask for series that exist, by labels that these have."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import promql_parser
import pytest
from prometheus_client import CollectorRegistry

from server.life import Life
from server.metrics import Measurement, Metrics
from tests.deploy.descriptions import DEPLOY, ROOT, alert_expressions, dashboard
from tests.support.pages import blocks

OF_PROMETHEUS = {"job", "instance"}
NOT_OF_THE_SERVER = {"up": OF_PROMETHEUS, "process_start_time_seconds": OF_PROMETHEUS}
"""Of Prometheus itself, and of its client library for Python."""


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """Names of all series, with their labels; those of vLLM as its source has them."""
    registry = CollectorRegistry()
    life = Life(route="chat", received_at=0.0, queued_at=0.0, admitted_at=0.0)
    seconds = count(1.0)
    measurement = Measurement(metrics=Metrics(registry), life=life, clock=lambda: next(seconds))
    measurement.reader.is_stream = True
    for text in ("가", "나"):
        measurement.wrote(_event(text))
    measurement.finish("ok")
    ours = {
        sample.name: {*sample.labels, *OF_PROMETHEUS}
        for metric in registry.collect()
        for sample in metric.samples
    }
    return ours | _of_vllm() | NOT_OF_THE_SERVER


def test_every_alert_is_about_a_series(series: dict[str, set[str]]) -> None:
    expressions = alert_expressions()
    assert len(expressions) >= 6
    for expression in expressions:
        check(expression, series)


def test_every_panel_is_about_a_series(series: dict[str, set[str]]) -> None:
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    assert len(expressions) >= 20
    for expression in expressions:
        check(expression.replace("$__rate_interval", "1m"), series)
    for variable in dashboard()["templating"]["list"]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label in series[name]


def test_every_expression_of_the_runbook_is_about_a_series(series: dict[str, set[str]]) -> None:
    lines = [
        line
        for block in blocks(ROOT / "docs" / "operations.md")
        if block.language == "promql"
        for line in block.text.splitlines()
        if not line.startswith("#")
    ]
    assert len(lines) >= 10
    for line in lines:
        check(line, series)


def test_panels_do_not_overlap() -> None:
    taken = [
        (column, row)
        for place in (panel["gridPos"] for panel in dashboard()["panels"])
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert max(column for column, _ in taken) < 24
    assert len(taken) == len(set(taken))


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian: prometheus)")
def test_prometheus_itself_reads_config_and_rules(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path, dirs_exist_ok=True)
    config = tmp_path / "prometheus.yml"
    config.write_text(config.read_text().replace("/run/secrets/metrics_key", str(tmp_path / "no_key")))
    done = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alert_expressions())} rules found" in done.stdout


def check(expression: str, series: dict[str, set[str]]) -> None:
    """Asserts that Prometheus reads it, that its series exist, and that they have the labels it names."""
    parsed = promql_parser.parse(expression)
    selectors = [one for one in walk(parsed) if isinstance(one, promql_parser.VectorSelector)]
    assert selectors, expression
    known: set[str] = set()
    for selector in selectors:
        labels = series.get(selector.name or "", set())
        assert labels, expression
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, expression
        known |= labels
    for one in walk(parsed):
        if isinstance(one, promql_parser.AggregateExpr) and one.modifier:
            assert set(one.modifier.labels) <= known, expression


def walk(expression: object) -> Iterator[object]:
    """The expression and all below it."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        below = getattr(expression, name, None)
        if below is not None:
            yield from walk(below)
    for argument in getattr(expression, "args", ()):
        yield from walk(argument)


def _event(text: str) -> bytes:
    return f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}\n\n'.encode()


def _of_vllm() -> dict[str, set[str]]:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).with_name("v1").joinpath("metrics", "loggers.py").read_text(encoding="utf-8")
    names = re.findall(r'name="(vllm:\w+)"', source)
    assert len(names) > 20
    labels = {*OF_PROMETHEUS, "model_name", "engine"}
    return {name + suffix: labels for name in names for suffix in ("", "_total")}
