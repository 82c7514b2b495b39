"""Renders the chart with real Helms, and rewrites `k8s/rendered`:

python -m tests.chart.rendering
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "charts" / "medkd"
RENDERED = ROOT / "k8s" / "rendered"
SCENARIOS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE, NAMESPACE = "flu", "lab"
MAJORS = (3, 4)

Object = dict[str, Any]


@cache
def helm(major: int) -> str | None:
    """The Helm of a major version: from MEDKD_HELM3 or MEDKD_HELM4, else `helm3`, `helm4` or `helm` on the PATH."""
    named = os.environ.get(f"MEDKD_HELM{major}")
    candidates = [named] if named else [shutil.which(f"helm{major}"), shutil.which("helm")]
    for binary in candidates:
        if binary and _version(binary).startswith(f"v{major}."):
            return binary
    return None


def _version(binary: str) -> str:
    return subprocess.run([binary, "version", "--short"], capture_output=True, text=True, check=False).stdout


def template(major: int, *flags: str, scenario: str = "default", release: str = RELEASE) -> subprocess.CompletedProcess[str]:
    """`helm template` of a scenario with more flags."""
    binary = helm(major)
    assert binary, f"no Helm {major}"
    values = CHART / "ci" / f"{scenario}-values.yaml"
    command = [binary, "template", release, str(CHART), "-n", NAMESPACE, "--kube-version", "1.34.0", "-f", str(values), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def rendered(major: int, scenario: str) -> str:
    """What a scenario renders to; fails where it does not."""
    result = template(major, scenario=scenario)
    assert result.returncode == 0, result.stderr
    return result.stdout


def objects(text: str) -> list[Object]:
    return [item for item in yaml.safe_load_all(text) if item]


def pods_of(items: list[Object]) -> list[tuple[Object, Object]]:
    """Each object that makes pods, with its pod template (for a Pod: itself)."""
    found = [(item, item["spec"]["template"]) for item in items if item["kind"] in ("Job", "Deployment")]
    return found + [(item, item) for item in items if item["kind"] == "Pod"]


def write_rendered() -> None:
    """Rewrite the golden manifests."""
    majors = [major for major in MAJORS if helm(major)]
    if not majors:
        raise SystemExit("needs Helm 3 or 4 on the PATH, or named by MEDKD_HELM3 or MEDKD_HELM4")
    major = max(majors)
    RENDERED.mkdir(parents=True, exist_ok=True)
    for old in RENDERED.glob("*.yaml"):
        old.unlink()
    for scenario in SCENARIOS:
        (RENDERED / f"{scenario}.yaml").write_text(rendered(major, scenario), encoding="utf-8")


if __name__ == "__main__":
    write_rendered()
