"""Values that could only fail later are refused at install, with a message that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chart.rendering import template

REFUSED = {
    "a typo": (["storage.prefixx=s3://a/b"], ["storage", "prefixx"]),
    "a typo in a stage's pod": (["train.pod.nodeSelectr.a=b"], ["train", "pod", "nodeSelectr"]),
    "a typo in an override": (["models.overrides.student_models.t5.num_epoch=3"], ["student_models", "num_epoch"]),
    "an override of a wrong kind": (["models.overrides.student_models.t5.num_epochs=many"], ["num_epochs"]),
    "an override out of range": (["models.overrides.student_models.t5.zero_stage=4"], ["zero_stage"]),
    "a table that is none": (["models.overrides.students.t5.num_epochs=3"], ["overrides", "students"]),
    "no prefix": (["storage.prefix="], ["storage.prefix: missing"]),
    "a prefix of another kind": (["storage.prefix=gs://bucket/runs"], ["storage", "prefix"]),
    "a prefix with a slash at its end": (["storage.prefix=s3://bucket/runs/"], ["storage", "prefix"]),
    "a folder without a claim": (["storage.prefix=/data/runs"], ["storage.existingClaim: missing"]),
    "a folder outside the claim": (
        ["storage.prefix=/runs", "storage.existingClaim=share"],
        ["storage.prefix: got /runs", "storage.mountPath /data"],
    ),
    "a claim beside S3": (["storage.existingClaim=share"], ["storage.existingClaim: got share"]),
    "no teacher": (["teacher.name="], ["teacher.name: missing", "deepseek"]),
    "an unknown teacher": (["teacher.name=deepsek"], ['teacher.name: got "deepsek"', "deepseek"]),
    "no budget": (["teacher.budgetUsd=null"], ["teacher.budgetUsd: missing"]),
    "a budget of nothing": (["teacher.budgetUsd=0"], ["teacher", "budgetUsd"]),
    "no key": (["teacher.existingSecret="], ["teacher.existingSecret: missing", "DEEPSEEK_API_KEY"]),
    "terms nobody acknowledged": (["teacher.name=openai"], ["teacher_models.openai.terms_acknowledged"]),
    "a teacher on the pod's own localhost": (["teacher.name=self-hosted"], ["teacher.baseUrl: missing"]),
    "an unknown student": (["student.name=t6"], ['student.name: got "t6"', "tiny-t5"]),
    "a large student on CPUs": (["student.name=llama", "train.gpusPerNode=0"], ["train.gpusPerNode: got 0", "7 billion"]),
    "a large student scored on CPUs": (["student.name=llama", "evaluate.gpus=0"], ["evaluate.gpus: got 0"]),
    "a large architecture on CPUs": (
        [
            "student.name=tiny-llama",
            "train.gpusPerNode=0",
            "models.overrides.student_models.tiny-llama.architecture.layers=32",
            "models.overrides.student_models.tiny-llama.architecture.width=4096",
        ],
        ["train.gpusPerNode: got 0"],
    ),
    "more shards than samples": (["plan.numSamples=8"], ["generate.shards: got 16", "plan.numSamples = 8"]),
    "every shard may fail": (["generate.maxFailedShards=16"], ["generate.maxFailedShards: got 16"]),
    "columns without conversations": (["conversations.recordColumn=record"], ["conversations.files: missing"]),
    "conversations that nobody said anything of": (
        ["conversations.files[0]=s3://a/b.csv"],
        ["conversations.containsPhi: missing", "patient data"],
    ),
    "patient data for a teacher without an agreement": (
        ["conversations.files[0]=s3://a/b.csv", "conversations.containsPhi=yes"],
        ["conversations.containsPhi: got yes", "teacher_models.deepseek.phi_agreement"],
    ),
    "something else than yes or no": (["conversations.containsPhi=perhaps"], ["containsPhi"]),
    "an encryption that S3 does not know": (["storage.encryption.type=rot13"], ["encryption", "type"]),
    "a key without its encryption": (["storage.encryption.kmsKeyId=k"], ["storage.encryption.kmsKeyId: got a key"]),
    "S3's encryption for a folder": (
        ["storage.prefix=/data/runs", "storage.existingClaim=share", "storage.encryption.type=AES256"],
        ["storage.encryption.type: got AES256", "encrypt the claim's volume"],
    ),
    "a data set of its own": (["dataset.from[0]=flu"], ["dataset.from: got flu", "this run itself"]),
    "a data set that is no run": (["dataset.from[0]=team/flu"], ["dataset", "from"]),
    "a queue without a mode": (["kueue.queueName=q"], ["kueue.releaseMode: missing"]),
    "a mode without a queue": (["kueue.releaseMode=gate"], ["kueue.queueName: missing"]),
    "a queue of a stage that is none": (["kueue.stages.training.queueName=q"], ["kueue", "training"]),
    "more shards admitted than run at once": (["kueue.minParallelism=9"], ["kueue.minParallelism: got 9"]),
    "GPUs among the resources": (
        ["train.resources.limits.nvidia\\.com/gpu=8"],
        ["train.resources: has nvidia.com/gpu", "train.gpusPerNode"],
    ),
    "memory of GPUs that are not there": (
        ["train.gpuMemoryGib=80", "train.gpusPerNode=0"],
        ["train.gpuMemoryGib: got 80", "train.gpusPerNode is 0"],
    ),
    "a GPU without memory": (["train.gpuMemoryGib=0"], ["train", "gpuMemoryGib"]),
    "shared memory beyond the limit": (["train.sharedMemory=128Gi"], ["train.sharedMemory: got 128Gi", "64Gi"]),
    "a scratch volume beyond the limit": (
        ["generate.resources.limits.ephemeral-storage=1.5Gi"],
        ["generate.scratchSize: got 2Gi", "ephemeral-storage"],
    ),
    "a size that is none": (["train.scratchSize=lots"], ["train", "scratchSize"]),
    "a floating image": (["images.worker.tag=latest"], ["images", "worker", "tag"]),
    "a variable that is not the gang's": (["train.nccl.PATH=/bin"], ["train", "nccl", "PATH"]),
    "a path in place of a record schema": (["plan.recordSchema=orders.json"], ["plan.recordSchema: not the text", "--set-file"]),
    "a range that is none": (["plan.exchanges=some"], ["plan", "exchanges"]),
    "a run's name with a slash": (["runName=team/flu"], ["runName"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_are_refused_by_name(major: int, case: str) -> None:
    settings, words = REFUSED[case]
    result = template(major, *(part for setting in settings for part in ("--set", setting)))
    assert result.returncode != 0
    for word in words:
        assert word in result.stderr


def test_an_upgrade_is_refused_and_told_what_to_do_instead(major: int) -> None:
    result = template(major, "--is-upgrade")
    assert result.returncode != 0
    for words in ("one release is one run", "helm uninstall flu", "--set runName=flu"):
        assert words in result.stderr


def test_a_release_name_that_starts_with_a_digit_needs_another_full_name(major: int) -> None:
    assert "fullnameOverride" in template(major, release="2flu").stderr
    assert template(major, "--set", "fullnameOverride=flu-2", release="2flu").returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "models.configs: not a JSON object"),
        ('["a"]', "models.configs: not a JSON object"),
        ("{}", "models.configs: teacher_models is missing"),
        ('{"teacher_models": {}, "student_models": {"t5": {"seed": 12345678901234567}}}', "16 digits"),
    ],
)
def test_a_configuration_of_ones_own_is_checked(major: int, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "configs.json"
    file.write_text(text)
    result = template(major, "--set-file", f"models.configs={file}")
    assert result.returncode != 0
    assert words in result.stderr
