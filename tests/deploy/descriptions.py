"""What is read of the files that describe a deployment."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def resolved_compose() -> dict[str, Any]:
    """compose.yaml as Compose reads it where no variable is set: anchors merged, defaults in place."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert "$" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def manifests() -> list[dict[str, Any]]:
    """All Kubernetes objects."""
    files = (DEPLOY / "kubernetes" / name for name in ("malmoi.yaml", "autoscaling.yaml"))
    return [found for file in files for found in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def manifest(kind: str) -> dict[str, Any]:
    """The one object of that kind."""
    (found,) = (one for one in manifests() if one["kind"] == kind)
    return found


def instructions(name: str, stage: str = "") -> list[str]:
    """What stands behind that word in the Dockerfile, lines joined; of one stage, or of all."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages = re.split(r"(?m)^(?=FROM )", text.replace("\\\n", " "))
    chosen = [one for one in stages if not stage or one.splitlines()[0].endswith(f" AS {stage}")]
    assert chosen, f"no stage {stage}"
    return [line.split(maxsplit=1)[1] for one in chosen for line in one.splitlines() if line.startswith(name)]


def alerts() -> list[dict[str, Any]]:
    """All of them, as Prometheus has them."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_expressions() -> list[str]:
    """The PromQL of the alerts."""
    return [rule["expr"] for rule in alerts()]


def dashboard() -> dict[str, Any]:
    """Grafana's dashboard."""
    file = DEPLOY / "grafana" / "dashboards" / "malmoi.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
