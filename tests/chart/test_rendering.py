"""Single settings and what they render to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medkd import config
from medkd.cluster import names
from tests.chart.rendering import CHART, Object, objects, template
from tests.chart.semantics import problems
from tests.schema_strategy import ORDERS_FILE


def render(major: int, *settings: str, scenario: str = "default", flags: tuple[str, ...] = ()) -> list[Object]:
    result = template(major, *flags, *(part for setting in settings for part in ("--set", setting)), scenario=scenario)
    assert result.returncode == 0, result.stderr
    return objects(result.stdout)


def named(items: list[Object], kind: str, name: str) -> Object:
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


def container(items: list[Object], stage: str) -> Object:
    found: Object = named(items, "Job", f"flu-{stage}")["spec"]["template"]["spec"]["containers"][0]
    return found


def variables(items: list[Object], stage: str) -> dict[str, Any]:
    return {variable["name"]: variable.get("value") for variable in container(items, stage)["env"]}


def slice_of(items: list[Object], stage: str) -> Any:
    return json.loads(named(items, "ConfigMap", f"flu-{stage}")["data"]["model_configs.json"])


def test_numbers_of_a_configuration_arrive_exactly(major: int, tmp_path: Path) -> None:
    numbers = [0, -1, 1e-5, 5e-324, 0.1 + 0.2, 12345678, 999999999999999, 2.5e300, 1e21, 123456.789, -0.0005]
    whole = json.loads((CHART / "files" / "model_configs.json").read_text())
    whole["teacher_models"]["deepseek"]["extra_body"] = {"numbers": numbers, "words": 'a "b" <c> & {{ d }} ü ☃ \u2028'}
    file = tmp_path / "configs.json"
    file.write_text(json.dumps(whole))
    items = render(major, flags=("--set-file", f"models.configs={file}"))
    assert slice_of(items, "plan")["teacher_models"]["deepseek"] == whole["teacher_models"]["deepseek"]


def test_the_configuration_a_pod_reads_is_the_one_a_laptop_reads(major: int, tmp_path: Path) -> None:
    text = (CHART / "files" / "model_configs.json").read_text()
    file = tmp_path / "configs.json"
    file.write_text(text.replace('"deepseek": {', '"deepseek": {"extra_body": {"top_p": 1.0, "penalties": [0.0, 0.5]}, ', 1))
    assert file.read_text() != text
    items = render(major, flags=("--set-file", f"models.configs={file}"))
    here = config.load(file)
    there = config.parse(named(items, "ConfigMap", "flu-plan")["data"]["model_configs.json"])
    assert config.config_hash(there.teacher("deepseek")) == config.config_hash(here.teacher("deepseek"))
    assert config.config_hash(there.student("t5")) == config.config_hash(here.student("t5"))
    assert there.generation_settings == here.generation_settings


def test_overrides_replace_values_by_false_zero_and_empty_ones(major: int) -> None:
    items = render(
        major,
        "models.overrides.teacher_models.deepseek.takes_seed=false",
        "models.overrides.teacher_models.deepseek.temperature=0",
        "models.overrides.student_models.t5.weight_decay=0",
        flags=("--set-json", 'models.overrides.generation_settings={"patient_moods":["calm"],"held_out_topics":[]}'),
    )
    found = slice_of(items, "plan")
    assert found["teacher_models"]["deepseek"]["takes_seed"] is False
    assert found["teacher_models"]["deepseek"]["temperature"] == 0
    assert found["teacher_models"]["deepseek"]["model"] == "deepseek-flash"
    assert found["student_models"]["t5"]["weight_decay"] == 0
    assert found["generation_settings"]["patient_moods"] == ["calm"]


def test_a_judge_comes_with_the_teacher_to_the_stages_that_ask(major: int) -> None:
    judges = '{"judges":{"teacher":"openai","share":0.5}}'
    items = render(major, flags=("--set-json", f"models.overrides.generation_settings={judges}"))
    for stage in ("plan", "generate"):
        assert set(slice_of(items, stage)["teacher_models"]) == {"deepseek", "openai"}
        assert config.parse(json.dumps(slice_of(items, stage))).generation_settings.judges == config.Judges(
            teacher="openai", share=0.5
        )
    assert slice_of(items, "prepare")["teacher_models"] == {}


def test_a_record_of_ones_own_comes_to_stage_plan_as_it_was_written(major: int) -> None:
    items = render(major, flags=("--set-file", f"plan.recordSchema={ORDERS_FILE}"))
    assert named(items, "ConfigMap", "flu-plan")["data"]["record_schema.json"] == ORDERS_FILE.read_text()
    assert "record_schema.json" not in named(items, "ConfigMap", "flu-generate")["data"]
    asked = {stage: "--record-schema=/etc/medkd/record_schema.json" in container(items, stage)["args"] for stage in names.STAGES}
    assert [stage for stage, found in asked.items() if found] == ["plan"]
    plain = render(major)
    before, after = (named(found, "Job", "flu-plan")["spec"]["template"]["metadata"]["annotations"] for found in (plain, items))
    assert before["checksum/config"] != after["checksum/config"]
    assert named(plain, "Job", "flu-train") == named(items, "Job", "flu-train")


def test_a_student_of_ones_own_comes_by_values(major: int) -> None:
    mine = '{"mine": {"model_name": "org/model", "learning_rate": 2e-5}}'
    items = render(major, "student.name=mine", flags=("--set-json", f"models.overrides.student_models={mine}"))
    assert slice_of(items, "train")["student_models"] == {"mine": {"model_name": "org/model", "learning_rate": 2e-5}}


def test_long_release_names_keep_every_name_within_63_characters(major: int) -> None:
    release = 52 * "a" + "z"
    result = template(major, "--set", "generate.shards=100000", release=release)
    items = objects(result.stdout)
    assert problems(items) == []
    assert named(items, "Job", 40 * "a" + "-generate")["metadata"]["labels"][names.LABEL_RUN] == release


def test_settings_of_a_stages_pod_come_on_top_of_those_of_all_pods(major: int) -> None:
    items = render(
        major, "pods.nodeSelector.zone=a", "train.pod.nodeSelector.gpu=h100", "train.pod.nodeSelector.zone=b",
        "pods.extraEnv[0].name=ONE", "train.pod.extraEnv[0].name=TWO",
        "pods.tolerations[0].operator=Exists", "pods.podSecurityContext.runAsUser=null", "train.pod.nodeLostSeconds=300",
    )  # fmt: skip
    train, plan = (named(items, "Job", f"flu-{stage}")["spec"]["template"]["spec"] for stage in ("train", "plan"))
    assert train["nodeSelector"] == {"gpu": "h100", "zone": "b"}
    assert plan["nodeSelector"] == {"zone": "a"}
    assert {"ONE", "TWO"} <= variables(items, "train").keys()
    assert "TWO" not in variables(items, "plan")
    assert {"operator": "Exists"} in train["tolerations"]
    assert "runAsUser" not in train["securityContext"]
    assert {toleration.get("tolerationSeconds") for toleration in train["tolerations"]} == {300, None}


def test_gpus_are_limits_of_the_trainers_and_of_the_one_pod_that_evaluates(major: int) -> None:
    items = render(major, "train.gpusPerNode=8", "train.nodes=2", "train.gpuResource=amd.com/gpu", "evaluate.gpus=2")
    assert container(items, "train")["resources"]["limits"]["amd.com/gpu"] == "8"
    assert container(items, "evaluate")["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "--ranks=8" in container(items, "train")["args"]
    cpu = render(major, "train.gpusPerNode=0", "train.cpuRanks=3")
    assert "--ranks=3" in container(cpu, "train")["args"]
    for stage in ("train", "evaluate"):
        assert list(container(cpu, stage)["resources"]["limits"]) == ["memory"]


def test_the_student_is_checked_to_fit_on_all_gpus_before_anything_is_paid(major: int) -> None:
    items = render(major, "train.gpusPerNode=8", "train.nodes=2", flags=("--set-json", "train.gpuMemoryGib=79.5"))
    (preflight,) = named(items, "Pod", "flu-preflight")["spec"]["containers"]
    for arguments in (container(items, "plan")["args"], preflight["args"]):
        assert {"--gpu-memory-gib=79.5", "--world-size=16"} <= set(arguments)
    assert not [flag for flag in container(render(major), "plan")["args"] if flag.startswith(("--gpu-memory", "--world-size"))]


def test_trainers_know_how_long_they_have_to_save_a_checkpoint(major: int) -> None:
    assert "--grace-seconds=100" in container(render(major), "train")["args"]
    longer = render(major, "train.terminationGracePeriodSeconds=615")
    assert "--grace-seconds=512" in container(longer, "train")["args"]
    assert named(longer, "Job", "flu-train")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 615


def test_shards_that_may_fail_are_known_to_job_and_driver(major: int) -> None:
    items = render(major, "generate.maxFailedShards=3")
    job = named(items, "Job", "flu-generate")["spec"]
    assert (job["completions"], job["parallelism"], job["maxFailedIndexes"]) == (16, 8, 3)
    assert "--max-failed-shards=3" in container(items, "driver")["args"]
    assert "--parallel=8" in container(items, "generate")["args"]
    few = render(major, "generate.shards=2")
    assert named(few, "Job", "flu-generate")["spec"]["parallelism"] == 2
    assert "--parallel=2" in container(few, "generate")["args"]


def test_queues_stand_on_the_jobs_or_wait_for_the_driver(major: int) -> None:
    gated = render(major, scenario="kueue")
    queues = {stage: named(gated, "Job", f"flu-{stage}")["metadata"]["labels"].get(names.LABEL_QUEUE) for stage in names.STAGES}
    assert queues == {**dict.fromkeys(names.STAGES, "medkd-cpu"), "train": "medkd-gpu", "evaluate": "medkd-gpu"}
    assert named(gated, "Job", "flu-driver")["metadata"]["labels"][names.LABEL_QUEUE] == "medkd-cpu"
    later = render(major, scenario="kueue-old")
    for stage in names.STAGES:
        metadata = named(later, "Job", f"flu-{stage}")["metadata"]
        assert names.LABEL_QUEUE not in metadata["labels"]
        assert metadata["annotations"][names.ANNOTATION_QUEUE] == "medkd"
    assert "--release-mode=label" in container(later, "driver")["args"]


def test_without_reading_pods_the_driver_has_three_rights(major: int) -> None:
    rules = named(render(major, "driver.readPods=false"), "Role", "flu-driver")["rules"]
    assert [rule["resources"] for rule in rules] == [["jobs"], ["configmaps"], ["events"]]


def test_the_default_run_carries_no_object_of_an_operator(major: int) -> None:
    kinds = {item["kind"] for item in render(major)}
    assert kinds == {"ConfigMap", "Job", "Pod", "Role", "RoleBinding", "Service", "ServiceAccount"}


@pytest.mark.parametrize("stage", [*names.STAGES, names.DRIVER])
def test_a_proxy_is_never_between_the_driver_and_its_api_server(major: int, stage: str) -> None:
    found = variables(render(major, "proxy.https=http://proxy:3128"), stage)
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert "$(KUBERNETES_SERVICE_HOST)" in found["NO_PROXY"]


def test_keys_are_mounted_only_where_they_are_used(major: int) -> None:
    items = render(major, "hub.existingSecret=hub")
    mounted = {
        stage: {mount["name"] for mount in container(items, stage)["volumeMounts"]} & {"teacher-key", "hub-token"}
        for stage in (*names.STAGES, names.DRIVER)
    }
    assert mounted.pop("plan") == {"teacher-key", "hub-token"}
    assert mounted.pop("generate") == {"teacher-key"}
    assert not any(mounted.values())


def test_only_stage_plan_asks_the_hub(major: int) -> None:
    items = render(major, "hub.existingSecret=hub", "hub.endpoint=https://mirror", "caBundle.existingConfigMap=trust")
    plan = variables(items, "plan")
    assert plan["HF_TOKEN_PATH"] == "/var/run/medkd/hub/HF_TOKEN"
    assert plan["HF_ENDPOINT"] == "https://mirror"
    assert plan["SSL_CERT_FILE"] == "/etc/medkd-ca/ca.crt"
    assert "HF_HUB_OFFLINE" not in plan
    for stage in ("prepare", "train", "evaluate"):
        later = variables(items, stage)
        assert later["HF_HUB_OFFLINE"] == "1"
        assert not {"HF_TOKEN_PATH", "HF_ENDPOINT"} & later.keys()
    assert variables(render(major, "hub.offline=true"), "plan")["HF_HUB_OFFLINE"] == "1"


def test_a_second_student_takes_another_runs_data_set_and_asks_no_teacher(major: int) -> None:
    items = render(major, "dataset.from[1]=s3://other/runs/old", scenario="second-student")
    job = named(items, "Job", "flu-generate")["spec"]
    # A Job of no pods completes as soon as it is let run.
    assert (job["completions"], job["parallelism"], job["maxFailedIndexes"]) == (0, 0, 0)
    lenders = ["--dataset-from=s3://medkd/runs/spring", "--dataset-from=s3://other/runs/old"]
    for stage in ("plan", "prepare"):
        assert [flag for flag in container(items, stage)["args"] if flag.startswith("--dataset-from")] == lenders
    grown = render(
        major, "plan.numSamples=100", "teacher.name=deepseek", "teacher.budgetUsd=1", "teacher.existingSecret=key",
        scenario="second-student",
    )  # fmt: skip
    assert named(grown, "Job", "flu-generate")["spec"]["completions"] == 16
