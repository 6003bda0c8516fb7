"""docs/operations.md has, for each alert, a heading that the alert names."""

import re

from tests.deploy.descriptions import ROOT, alerts

PAGE = "docs/operations.md"


def test_each_alert_names_its_heading_and_each_heading_has_its_alert() -> None:
    headings = re.findall(r"^#+ (Malmoi\w+)$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"{PAGE}#{alert['alert'].lower()}"
