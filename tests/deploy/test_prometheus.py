"""Alerts that fire, on series of a test's own and in a real Prometheus that scrapes a running server."""

import shutil
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry
from vllm.config import VllmConfig

from server.keys import Key, KeyFile, add_key, digest_of, new_secret
from tests.deploy.descriptions import DEPLOY, alerts, dashboard
from tests.support.page_server import PageServer, page_server
from tests.support.prometheus import FOUND, Prometheus, running_prometheus
from tests.support.running_server import running_server
from tests.support.waiting import until

RULES_TEST = DEPLOY / "prometheus" / "rules_test.yml"
needs_prometheus = pytest.mark.skipif(not FOUND, reason="no prometheus (apt-get install prometheus)")
needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="no promtool (apt-get install prometheus)"
)
ANSWER = "대한민국의 수도는 서울입니다."
REQUEST = {"messages": [{"role": "user", "content": "수도는 어디인가요?"}], "max_tokens": 16}
SECRET = new_secret()


@needs_promtool
def test_each_alert_fires_where_it_should_and_is_silent_where_all_is_well() -> None:
    done = subprocess.run(["promtool", "test", "rules", RULES_TEST], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_among_those_that_are_shown_to_fire() -> None:
    said = RULES_TEST.read_text(encoding="utf-8")
    healthy, *others = yaml.safe_load(said)["tests"]
    assert healthy["promql_expr_test"] == [{"expr": "ALERTS", "eval_time": "1h", "exp_samples": []}]
    fired = {
        (sample["labels"], alert["alert"])
        for test in others
        for check in test["promql_expr_test"]
        for sample in check["exp_samples"]
        for alert in alerts()
        if f'alertname="{alert["alert"]}", alertstate="firing", severity="{alert["labels"]["severity"]}"'
        in sample["labels"]
    }
    assert {name for _, name in fired} == {alert["alert"] for alert in alerts()}


@pytest.fixture(scope="module")
def server(
    arguments: Namespace,
    vllm_config: VllmConfig,
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PageServer]:
    """With a key that may read the metrics, ours among them."""
    file, registry = tmp_path_factory.mktemp("keys") / "keys.json", CollectorRegistry()
    key = Key(id="watcher", name="watcher", digest=digest_of(SECRET), created=datetime.now(UTC), metrics=True)
    add_key(file, key)
    with page_server(arguments, vllm_config, tiny_checkpoint, KeyFile(file), registry) as server:
        server.say(ANSWER)
        REGISTRY.register(registry)
        try:
            yield server
        finally:
            REGISTRY.unregister(registry)


@needs_prometheus
def test_prometheus_scrapes_evaluates_and_alerts(server: PageServer, tmp_path: Path) -> None:
    target = server.url.removeprefix("http://")
    with running_prometheus(tmp_path, target, SECRET) as prometheus:
        check_watched(prometheus, server.url, SECRET)
        assert prometheus.query('malmoi_ready{job="malmoi"}')[0]["value"][1] == "1"
        server.gate.drain()
        until(
            lambda: [alert["labels"]["alertname"] for alert in prometheus.query_alerts()] == ["MalmoiNotReady"]
        )
        (alert,) = prometheus.query_alerts()
        assert alert["state"] == "pending", "for a minute"
        assert alert["annotations"]["summary"].startswith(target)


@pytest.mark.slow
@needs_prometheus
def test_prometheus_beside_the_real_engine(tiny_checkpoint: Path, tmp_path: Path) -> None:
    directory = tmp_path / "prometheus"
    with (
        running_server(tmp_path, str(tiny_checkpoint)) as server,
        running_prometheus(directory, server.url.removeprefix("http://"), "none") as prometheus,
    ):
        check_watched(prometheus, server.url, "none")
        targets = [target for panel in dashboard()["panels"] for target in panel["targets"]]
        for expression in (target["expr"].replace("$__rate_interval", "1m") for target in targets):
            for variable in ("$instance", "$route", "$group"):
                expression = expression.replace(variable, ".*")
            until(partial(prometheus.query, expression))


def check_watched(prometheus: Prometheus, url: str, key: str) -> None:
    """Asserts that a server that answers is scraped, and that every rule is evaluated and content."""
    until(lambda: [target["health"] for target in prometheus.targets()] == ["up"])
    for stream in (False, True, False):
        answer = httpx.post(
            f"{url}/v1/chat/completions",
            json=REQUEST | {"stream": stream},
            headers={"authorization": f"Bearer {key}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
    until(lambda: bool(prometheus.query("malmoi_requests_total{route='chat', outcome='ok'} == 3")))
    until(lambda: {rule["health"] for rule in prometheus.rules()} == {"ok"})
    assert [rule["name"] for rule in prometheus.rules()] == [alert["alert"] for alert in alerts()]
    assert prometheus.query("changes(process_start_time_seconds{job='malmoi'}[30m])")[0]["value"][1] == "0"
    assert prometheus.query_alerts() == []
