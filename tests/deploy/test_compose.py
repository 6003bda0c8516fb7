"""compose.yaml is what Compose understands, and its parts fit each other and the server."""

import inspect
import json
from typing import Any

import compose_spec
import pytest
import yaml

from server.__main__ import serve
from tests.deploy.descriptions import DEPLOY, ROOT, instructions, resolved_compose

SERVERS = ("server-cpu", "server-gpu")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return resolved_compose()


def test_compose_understands_every_line(compose: dict[str, Any]) -> None:
    read = compose_spec.PyCompose.from_json(json.dumps(compose))
    assert set(read.services or ()) == {*SERVERS, "prometheus", "grafana"}


def test_a_misspelt_line_is_seen(compose: dict[str, Any]) -> None:
    compose = json.loads(json.dumps(compose))
    compose["services"]["grafana"]["restrat"] = "always"
    with pytest.raises(ValueError, match="restrat"):
        compose_spec.PyCompose.from_json(json.dumps(compose))


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_starts_one_server_and_what_watches_it(compose: dict[str, Any], profile: str) -> None:
    started = {
        name for name, service in compose["services"].items() if profile in service.get("profiles", [profile])
    }
    assert started == {f"server-{profile}", "prometheus", "grafana"}
    server = compose["services"][f"server-{profile}"]
    assert server["build"]["target"] == profile
    assert instructions("ENTRYPOINT", "serving")
    assert "server" in server["networks"]["default"]["aliases"]


def test_what_is_mounted_from_deploy_is_there(compose: dict[str, Any]) -> None:
    mounted = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service["volumes"]
        if volume.startswith("./deploy")
    ]
    mounted.append(compose["secrets"]["metrics_key"]["file"])
    assert len(mounted) == 4
    assert all((ROOT / path).exists() for path in mounted)


def test_nothing_is_published_beyond_this_machine_unless_told_so(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_servers_are_confined_and_given_time_to_drain(compose: dict[str, Any]) -> None:
    drain_s = inspect.signature(serve).parameters["drain_timeout"].default
    for name in SERVERS:
        server = compose["services"][name]
        assert server["read_only"]
        assert server["cap_drop"] == ["ALL"]
        assert int(server["stop_grace_period"].removesuffix("s")) > drain_s


def test_prometheus_and_grafana_find_whom_they_ask(compose: dict[str, Any]) -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    port = inspect.signature(serve).parameters["port"].default
    assert job["static_configs"] == [{"targets": [f"server:{port}"]}]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_key"
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "malmoi.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
