"""Files that `make chart-files` writes are current, and the chart speaks of the same program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import medkd
from charts.write_files import read_values, rendered_files
from tests.chart.rendering import CHART, SCENARIOS


@pytest.mark.parametrize("path", rendered_files(), ids=lambda path: path.name)
def test_written_files_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == rendered_files()[path], "make chart-files"


def test_the_charts_configuration_is_no_link() -> None:
    assert not (CHART / "files" / "model_configs.json").is_symlink()


def test_the_chart_installs_the_version_that_it_comes_with() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == medkd.__version__


def test_the_schema_is_closed_in_every_group_of_values() -> None:
    def open_groups(schema: object, path: str) -> list[str]:
        if not isinstance(schema, dict) or "properties" not in schema:
            return []
        mine = [] if schema.get("additionalProperties") is False else [path]
        return mine + [found for name, part in schema["properties"].items() for found in open_groups(part, f"{path}.{name}")]

    assert open_groups(json.loads((CHART / "values.schema.json").read_text()), "") == []


def test_a_value_without_a_description_is_an_error() -> None:
    with pytest.raises(ValueError, match="b has no `# --` description"):
        read_values("# -- Said.\na: 1\nb: 2\n")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_says_first_what_it_is(scenario: str) -> None:
    assert (CHART / "ci" / f"{scenario}-values.yaml").read_text().startswith("# ")
