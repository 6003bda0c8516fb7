"""The Kubernetes objects are what the API knows, and fit each other, the image and the server."""

import inspect
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import promql_parser
import pytest
import yaml

from server.__main__ import serve
from server.gate import HEALTH, READY
from tests.deploy.descriptions import DEPLOY, instructions, manifest, manifests

OLDEST, NEWEST = "1.31", "1.37"
"""Of the API, that the objects are for; the oldest has unhealthyPodEvictionPolicy."""


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("found", manifests(), ids=lambda found: found["kind"])
def test_the_api_knows_every_field(found: dict[str, Any], version: str) -> None:
    assert kubernetes_validate.validate(found, version, strict=True).startswith(version)


def test_an_unknown_field_is_seen() -> None:
    found = manifest("Deployment")
    found["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(found, NEWEST, strict=True)


def test_everything_is_about_the_same_pods() -> None:
    deployment = manifest("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_ports_and_probes_are_the_servers() -> None:
    server = _server()
    (port,) = server["ports"]
    assert port["containerPort"] == inspect.signature(serve).parameters["port"].default
    probes = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": READY,
        "readiness": READY,
        "liveness": HEALTH,
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert manifest("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert manifest("NetworkPolicy")["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]


def test_a_pod_is_given_time_to_drain() -> None:
    pause_s = _server()["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = inspect.signature(serve).parameters["drain_timeout"].default
    assert (
        manifest("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > pause_s + drain_s
    )


def test_the_user_is_the_images_and_nothing_but_volumes_is_written_to() -> None:
    pod, server = manifest("Deployment")["spec"]["template"]["spec"], _server()
    context = pod["securityContext"]
    assert context["runAsNonRoot"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == instructions("USER", "serving")[-1]
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in server["volumeMounts"]}
    written = {mount["mountPath"] for mount in server["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/cache", "/tmp", "/dev/shm"}


def test_the_autoscaler_asks_for_what_the_adapter_offers() -> None:
    (rule,) = yaml.safe_load((DEPLOY / "kubernetes" / "adapter.yaml").read_text())["rules"]
    (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    query = rule["metricsQuery"]
    for placeholder, value in (("Series", "s_bucket"), ("LabelMatchers", 'pod="a"'), ("GroupBy", "pod")):
        assert f"<<.{placeholder}>>" in query
        query = query.replace(f"<<.{placeholder}>>", value)
    promql_parser.parse(query)
    promql_parser.parse(rule["seriesQuery"])


def _server() -> dict[str, Any]:
    (server,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(server, dict)
    return server
