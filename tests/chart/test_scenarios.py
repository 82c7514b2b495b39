"""Every scenario file, rendered by every Helm that is there."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import yaml

from medkd import config
from medkd.cluster import names
from medkd.commands.flags import build_parser
from tests.chart.pod_security import violations
from tests.chart.rendering import CHART, MAJORS, RENDERED, SCENARIOS, Object, helm, objects, pods_of, rendered
from tests.chart.semantics import problems

CONFIG = CHART / "files" / "model_configs.json"
# Kinds of operators that the schemas of Kubernetes do not know.
FOREIGN = ("monitoring.coreos.com/v1",)


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_objects_pass_the_strict_schemas_of_kubernetes(items: list[Object], version: str) -> None:
    pytest.importorskip("kubernetes_validate")
    for item in items:
        if item["apiVersion"] not in FOREIGN:
            validate(json.dumps(item), version)


@cache
def validate(item: str, version: str) -> None:
    """Many objects are the same in several scenarios, and a schema takes its time."""
    import kubernetes_validate

    kubernetes_validate.validate(json.loads(item), version, strict=True)


def test_pods_pass_pod_security_restricted(items: list[Object]) -> None:
    assert {owner["metadata"]["name"]: violations(template["spec"]) for owner, template in pods_of(items)} == {
        owner["metadata"]["name"]: [] for owner, _ in pods_of(items)
    }


def test_objects_fit_together(items: list[Object]) -> None:
    assert problems(items) == []


def test_containers_run_verbs_that_the_program_takes(items: list[Object]) -> None:
    parser = build_parser()
    verbs = {}
    for owner, template in pods_of(items):
        arguments = template["spec"]["containers"][0]["args"]
        assert all(isinstance(argument, str) for argument in arguments)
        verbs[owner["metadata"]["name"].rpartition("-")[2]] = parser.parse_args(arguments).name
    assert verbs == {verb: verb for verb in (*names.STAGES, names.DRIVER, "preflight")}


def test_names_and_keys_are_those_of_the_program(items: list[Object]) -> None:
    found = {(item["kind"], item["metadata"]["name"]) for item in items}
    full_name = next(name for kind, name in found if kind == "Job" and name.endswith("-plan")).removesuffix("-plan")
    assert {("Job", names.job_name(full_name, stage)) for stage in (*names.STAGES, names.DRIVER)} <= found
    assert ("ConfigMap", names.status_config_map(full_name)) in found
    for owner, template in pods_of(items):
        assert owner["metadata"]["labels"][names.LABEL_RUN] == "flu"
        assert template["metadata"]["labels"][names.LABEL_RUN] == "flu"


def test_each_stage_reads_its_slice_with_every_value_as_written(items: list[Object], scenario: str) -> None:
    overrides = yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text()).get("models", {}).get("overrides", {})
    whole = _merged(json.loads(CONFIG.read_text()), overrides)
    for stage in names.STAGES:
        config_map = next(
            item for item in items if item["kind"] == "ConfigMap" and item["metadata"]["name"].endswith(f"flu-{stage}")
        )
        assert config_map["immutable"] is True
        text = config_map["data"]["model_configs.json"]
        config.parse(text)
        slice_ = json.loads(text)
        assert slice_["generation_settings"] == whole["generation_settings"]
        assert len(slice_["student_models"]) == 1
        assert len(slice_["teacher_models"]) == (stage in ("plan", "generate"))
        for table in ("student_models", "teacher_models"):
            for name, entry in slice_[table].items():
                assert entry == whole[table][name]


@pytest.mark.chart
def test_both_helms_render_the_same(scenario: str) -> None:
    if not all(helm(major) for major in MAJORS):
        pytest.skip("needs Helm 3 and Helm 4")
    first, second = (objects(rendered(major, scenario)) for major in MAJORS)
    assert first == second


def test_rendered_manifests_in_the_repository_are_current(major: int, scenario: str) -> None:
    golden = RENDERED / f"{scenario}.yaml"
    assert golden.is_file(), "make rendered"
    assert objects(rendered(major, scenario)) == objects(golden.read_text()), "make rendered, and look at what changes"


def test_no_rendered_manifest_is_left_over() -> None:
    assert {path.stem for path in RENDERED.glob("*.yaml")} == set(SCENARIOS)


def _merged(target: Any, overrides: Any) -> Any:
    if not (isinstance(target, dict) and isinstance(overrides, dict)):
        return overrides
    return {**target, **{key: _merged(target.get(key), value) for key, value in overrides.items()}}
