"""Tests that render run once for each Helm that is there."""

from __future__ import annotations

import pytest

from tests.chart.rendering import MAJORS, SCENARIOS, Object, helm, objects, rendered


@pytest.fixture(params=[pytest.param(major, marks=pytest.mark.chart, id=f"helm{major}") for major in MAJORS])
def major(request: pytest.FixtureRequest) -> int:
    """A major version of Helm that is installed."""
    if helm(request.param) is None:
        pytest.skip(f"needs Helm {request.param} as MEDKD_HELM{request.param} or on the PATH")
    return int(request.param)


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> str:
    """A scenario file of the chart."""
    return str(request.param)


@pytest.fixture
def items(major: int, scenario: str) -> list[Object]:
    """The objects of a scenario. Several tests share them: look, do not touch."""
    return objects(rendered(major, scenario))
