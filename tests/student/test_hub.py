"""Weights of a hub model: copied into the run's store by the real command from a hub over HTTP, and used from there alone."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medkd.commands.plans import wanted_weights
from medkd.commands.settings import check_hub_token
from medkd.config import StudentConfig
from medkd.errors import ConfigError, InputError, RefusedError, UnreachableError
from medkd.records import PATIENT_RECORD
from medkd.store import manifests
from medkd.store.files import Store, open_store
from medkd.student import hub as weights
from medkd.student.tokens import build_tokenizer
from tests.student.hub_server import COMMIT, Hub
from tests.student.limited import limited_tokenizer
from tests.student.trained import rows

NAME = "org/tiny"
WEIGHTS = f"weights/{NAME}@main"
STUDENT = StudentConfig(model_name=NAME)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What a model's repository holds: all that is needed, and what is not."""
    folder = tmp_path / "repository"
    limited_tokenizer().save_pretrained(folder)
    sizes = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 4, "vocab_size": 200}
    (folder / "config.json").write_text(json.dumps(sizes))
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    for unused in ("pytorch_model.bin", "tf_model.h5", "pytorch_model.bin.index.json"):
        (folder / unused).write_bytes(b"unused")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"unused")
    return folder


def plan(tmp_path: Path, hub_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`medkd plan` of a run whose conversations bring their records along, with a student from the hub."""
    raw = json.loads((Path(__file__).parent.parent.parent / "configs" / "model_configs.json").read_text())
    raw["student_models"] = {"mine": {"model_name": NAME}}
    (tmp_path / "configs.json").write_text(json.dumps(raw))
    lines = [json.dumps({"conversation": row["input"], "record": row["output"]}) for row in rows()]
    (tmp_path / "visits.jsonl").write_text("\n".join(lines))
    flags = ["--config", tmp_path / "configs.json", "--prefix", tmp_path / "run", "--student", "mine"]
    source = ["--conversations", tmp_path / "visits.jsonl", "--record-column", "record", "--contains-phi", "no"]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "medkd", "plan", *map(str, (*flags, *source))]
    return subprocess.run(command, env=variables | environment, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process's hub client without a token of the machine's own."""
    from huggingface_hub import constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def find(hub: Hub, student: StudentConfig = STUDENT) -> weights.HubModel:
    return weights.find_on_hub(student, threading.Event(), hub.url)


def run_store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"))


def test_stage_plan_copies_a_models_weights_and_nobody_asks_the_hub_after_that(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "HF_TOKEN").write_text("hf_canary\n")
    with Hub(repository, NAME, token="hf_canary") as hub:
        hub.broken["config.json"] = 1
        planned = plan(tmp_path, hub.url, HF_TOKEN_PATH=str(tmp_path / "HF_TOKEN"))
        assert planned.returncode == 0, planned.stderr
        assert "hf_canary" not in planned.stdout + planned.stderr
        copied = manifests.require(run_store(tmp_path), f"{WEIGHTS}/manifest.json", "plan")
        assert copied.counts["commit"] == COMMIT
        names = {file.path.removeprefix(f"{WEIGHTS}/") for file in copied.files}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
        assert not names & {"pytorch_model.bin", "tf_model.h5", "pytorch_model.bin.index.json", "onnx/model.onnx"}
        assert hub.fetched["model.safetensors"] == 1 and hub.fetched["pytorch_model.bin"] == 0
    # The hub is gone, and no token is there.
    args = argparse.Namespace(config=str(tmp_path / "configs.json"), student="mine")
    assert wanted_weights(args, run_store(tmp_path), threading.Event()) is None
    found = build_tokenizer(run_store(tmp_path), STUDENT, rows(), PATIENT_RECORD, tmp_path / "scratch")
    assert found.family.name == "causal"


def test_a_large_file_that_an_interrupted_plan_had_copied_is_not_fetched_again(
    repository: Path, tmp_path: Path, no_token: None
) -> None:
    store, stop = run_store(tmp_path), threading.Event()
    store.upload_file(repository / "model.safetensors", f"{WEIGHTS}/model.safetensors")
    with Hub(repository, NAME) as hub:
        copied = weights.copy_weights(store, STUDENT, find(hub), tmp_path / "scratch", stop)
        assert hub.fetched["model.safetensors"] == 0 and hub.fetched["config.json"] == 1
    assert weights.copied_weights(store, STUDENT) == copied
    weights.fetch_copy(store, copied, STUDENT, tmp_path / "there")
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    store.replace(f"{WEIGHTS}/config.json", b"{}")
    with pytest.raises(InputError, match=r"config\.json: differs from its manifest"):
        weights.fetch_copy(store, copied, STUDENT, tmp_path / "spoiled")


def test_a_gated_model_wants_a_token_and_says_so(
    repository: Path, tmp_path: Path, no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = pytest.raises(RefusedError, match=r"does not give 'org/tiny' to us .*hub\.existingSecret")
    with Hub(repository, NAME, token="hf_canary") as hub, refused:
        find(hub)
    # A chart names the file whether or not its Secret exists.
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"no token at .*absent; create the Secret .*hub\.tokenKey"):
        check_hub_token()


def test_a_model_that_the_hub_does_not_know_and_a_hub_that_nobody_may_ask_are_named(
    repository: Path, no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with Hub(repository, NAME) as hub:
        with pytest.raises(ConfigError, match="the hub knows no 'org/other'"):
            find(hub, StudentConfig(model_name="org/other"))
        with pytest.raises(ConfigError, match="revision: got 'gone'"):
            find(hub, StudentConfig(model_name=NAME, revision="gone"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE"):
            find(hub)


def test_a_hub_that_does_not_answer_is_given_up_for_a_retry(
    repository: Path, no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PATIENCE_SECONDS", 0.5)
    with Hub(repository, NAME) as hub:
        pass
    with pytest.raises(UnreachableError, match="the hub did not give 'org/tiny'"):
        find(hub)


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        (["model.safetensors", "pytorch_model.bin", "config.json"], ["config.json", "model.safetensors"]),
        (["pytorch_model.bin", "config.json", "training_args.bin"], ["config.json", "pytorch_model.bin"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "consolidated.safetensors", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (["flax_model.msgpack", "config.json", "spiece.model", "merges.txt"], ["config.json", "merges.txt", "spiece.model"]),
    ],
)  # fmt: skip
def test_a_student_needs_its_weights_in_one_form_only(there: list[str], needed: list[str]) -> None:
    assert weights.needed_files(there) == needed


def test_only_names_of_the_hub_are_asked_of_the_hub(tmp_path: Path) -> None:
    named = {"gpt2": True, "org/model": True, "s3://bucket/model": False, "/weights/t5": False, str(tmp_path): False}
    assert {name: weights.is_hub_model(StudentConfig(model_name=name)) for name in named} == named
    sizes = {"family": "t5", "layers": 1, "width": 8, "heads": 1, "feed_forward": 8}
    assert not weights.is_hub_model(StudentConfig.model_validate({"model_name": "tiny", "architecture": sizes}))
    assert weights.copied_weights(open_store(str(tmp_path)), STUDENT) is None
