"""Alerts and dashboard ask for what drivers publish."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from medkd.cluster import metrics
from medkd.cluster.names import STAGES
from medkd.quality.verdicts import verdict_words
from tests.chart.rendering import CHART, ROOT

DASHBOARD = json.loads((ROOT / "k8s" / "monitoring" / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
PUBLISHED = set(re.findall(r'"(medkd_\w+)":', (ROOT / "medkd" / "cluster" / "metrics.py").read_text()))
PHASES = {*metrics.RUN_PHASES, *metrics.STAGE_PHASES}


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in ALERTS)
    yield from ((panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"])


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_expressions_ask_for_metrics_and_phases_that_exist(name: str, expression: str) -> None:
    asked = set(re.findall(r"medkd_\w+", expression))
    assert asked
    assert asked <= PUBLISHED
    for phases in re.findall(r'phase=~?"([^"]+)"', expression):
        assert set(phases.split("|")) <= PHASES
    for stage in re.findall(r'stage="([^"]+)"', expression):
        assert stage in STAGES


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_names_the_run_and_can_be_narrowed_to_one(rule: dict[str, Any]) -> None:
    assert 'run=~".+"' in rule["expr"]
    assert "{{ $labels.run }}" in rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_panels_fill_the_dashboard_without_overlapping() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(height)}


def test_the_panel_of_the_student_knows_every_verdict_by_its_words() -> None:
    (panel,) = [panel for panel in DASHBOARD["panels"] if "medkd_student_verdict" in panel["targets"][0]["expr"]]
    asked = re.findall(
        r'(\d) \* max by \(run, student\) \(medkd_student_verdict{[^}]*verdict="([^"]+)"', panel["targets"][0]["expr"]
    )
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    assert {number: shown["text"] for number, shown in mapping["options"].items()} == dict(asked)
    checks = [{"what": "micro.f1"}]
    verdicts = [{"checks": found, "passed": passed} for found, passed in ((checks, True), (checks, False), ([], True))]
    assert {words for _, words in asked} == {verdict_words(verdict) for verdict in verdicts}


def test_every_panel_says_what_it_shows() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["description"] and panel["title"] for panel in DASHBOARD["panels"])
