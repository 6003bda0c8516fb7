"""A real Prometheus on a free port of the loopback, with the configuration of deploy/prometheus."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_S

FOUND = shutil.which("prometheus") is not None
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "prometheus"
PACE = "1s"


class Prometheus:
    """One that runs; its answers are those of its HTTP API."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that the expression has now; an error where Prometheus cannot evaluate it."""
        answer = self._get("/query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """What has come of each rule."""
        return [rule for group in self._get("/rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that goes."""
        found: list[dict[str, Any]] = self._get("/targets")["activeTargets"]
        return found

    def query_alerts(self) -> list[dict[str, Any]]:
        """Those that fire or are about to."""
        found: list[dict[str, Any]] = self._get("/alerts")["alerts"]
        return found

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = self._client.get(path, params=parameters).raise_for_status().json()
        data: dict[str, Any] = answer["data"]
        return data

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


@contextmanager
def running_prometheus(directory: Path, target: str, key: str) -> Iterator[Prometheus]:
    """Scrapes `target` (host:port) with `key`; but for addresses, the key's place and the pace as deployed."""
    shutil.copytree(CONFIGURATION, directory, dirs_exist_ok=True)
    (directory / "key").write_text(key)
    file = directory / "prometheus.yml"
    configuration = yaml.safe_load(file.read_text(encoding="utf-8"))
    configuration["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), PACE)
    (job,) = configuration["scrape_configs"]
    job["authorization"]["credentials_file"] = str(directory / "key")
    job["static_configs"] = [{"targets": [target]}]
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    options = [
        f"--config.file={file}",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address={address}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *options], stdout=log, stderr=log)
    prometheus = Prometheus(f"http://{address}")
    try:
        yield prometheus
    finally:
        prometheus.close()
        process.terminate()
        process.wait(PATIENCE_S)
