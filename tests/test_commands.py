"""The command line as users and pods meet it: real processes, real HTTP, exit codes and one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medkd.commands.flags import build_parser
from medkd.commands.settings import record_schema
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD
from medkd.simulator.server import Server
from medkd.stages import control
from medkd.store.files import open_store
from tests.command_line import medkd, refused
from tests.generation import planned, simulated, start_simulator

SHIPPED = Path(__file__).parent.parent / "configs" / "model_configs.json"


@pytest.fixture
def server() -> Iterator[Server]:
    with start_simulator(api_key="right-key") as server:
        yield server


def changed_config(folder: Path, server: Server | None = None, **teacher: Any) -> Path:
    """The shipped configuration with another teacher `clinic`: the simulator behind a key."""
    raw = json.loads(SHIPPED.read_text())
    url = f"{server.url}/v1" if server else "http://localhost:9/v1"
    raw["teacher_models"]["clinic"] = raw["teacher_models"]["simulator"] | {
        "base_url": url,
        "auth": "bearer",
        "api_key_env": "CLINIC_API_KEY",
        **teacher,
    }
    raw["generation_settings"]["conversation_topics"] = ["asthma", "gout"]
    path = folder / "config.json"
    path.write_text(json.dumps(raw))
    return path


def run_line(prefix: Path | str, config: Path, *more: str) -> list[str]:
    return [
        "run",
        "--prefix",
        str(prefix),
        "--config",
        str(config),
        "--teacher",
        "clinic",
        "--num-samples",
        "8",
        "--num-shards",
        "2",
        *more,
    ]


def test_a_wrong_key_is_refused_with_77_before_anything_is_paid(tmp_path: Path, server: Server) -> None:
    line = run_line(tmp_path / "run", changed_config(tmp_path, server))
    finished = medkd(*line, environment={"CLINIC_API_KEY": "wrong-key-canary"})
    refused(finished, 77, "key")
    assert "wrong-key-canary" not in finished.stderr + finished.stdout
    assert "wrong-key-canary" not in "".join(log.read_text() for log in (tmp_path / "run" / "logs").iterdir())
    assert server.counters.stats()["billed_total"] == 0
    plan = ["plan", *line[1:]]
    assert medkd(*plan, environment={"CLINIC_API_KEY": "right-key\n"}).returncode == 0, "the right key passes, its newline too"


def test_a_missing_key_is_refused_with_78_naming_variable_and_file(tmp_path: Path, server: Server) -> None:
    refused(medkd(*run_line(tmp_path / "run", changed_config(tmp_path, server))), 78, "CLINIC_API_KEY", "/var/run/medkd/secrets")


def test_an_unknown_teacher_is_refused_with_78_naming_the_known_ones(tmp_path: Path) -> None:
    refused(medkd("run", "--prefix", str(tmp_path / "run"), "--teacher", "deepsek"), 78, "did you mean 'deepseek'", "groq")


def test_an_unknown_model_is_refused_with_78_naming_what_is_served(tmp_path: Path, server: Server) -> None:
    config = changed_config(tmp_path, server, model="clinic-9")
    refused(medkd(*run_line(tmp_path / "run", config), environment={"CLINIC_API_KEY": "right-key"}), 78, "clinic-9", "clinic-1")


@pytest.mark.parametrize("prefix", ["/proc/nowhere/run", "{file}/run"])
def test_an_unwritable_prefix_is_refused_in_one_line(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    refused(medkd(*run_line(prefix.format(file=file), changed_config(tmp_path))), 78, "--prefix")


def test_a_budget_that_cannot_pay_the_run_is_refused_with_77_before_anything_is_paid(tmp_path: Path, server: Server) -> None:
    config = changed_config(tmp_path, server, prices={"input": 1000, "output": 4000})
    line = run_line(tmp_path / "run", config, "--budget-usd", "0.5")
    refused(medkd(*line, environment={"CLINIC_API_KEY": "right-key"}), 77, "--budget-usd: got 0.5", "Nothing has been paid")
    assert server.counters.stats()["billed_total"] == 0


def test_a_priced_teacher_without_a_budget_is_refused_with_78(tmp_path: Path, server: Server) -> None:
    config = changed_config(tmp_path, server, prices={"input": 1, "output": 4})
    refused(medkd(*run_line(tmp_path / "run", config), environment={"CLINIC_API_KEY": "right-key"}), 78, "--budget-usd: missing")


def test_a_broken_configuration_is_refused_with_78_naming_the_key(tmp_path: Path) -> None:
    config = changed_config(tmp_path, limits={"max_concurency": 4})
    refused(medkd(*run_line(tmp_path / "run", config)), 78, "teacher_models.clinic.limits.max_concurency", "max_concurrency")
    config.write_text("{")
    refused(medkd(*run_line(tmp_path / "run", config)), 78, "not JSON at line 1")


def test_terms_that_restrict_training_must_be_acknowledged(tmp_path: Path, server: Server) -> None:
    config = changed_config(tmp_path, server, output_terms="restricted")
    line = run_line(tmp_path / "run", config)
    refused(medkd(*line, environment={"CLINIC_API_KEY": "right-key"}), 78, "terms_acknowledged")


def test_what_conversations_hold_must_be_said_and_decides_who_may_see_them(tmp_path: Path, server: Server) -> None:
    visits = tmp_path / "visits.csv"
    visits.write_text('conversation\n"Doctor: Hello.\nPatient: I have had a cough for 3 days."\n')
    key = {"CLINIC_API_KEY": "right-key"}
    shared = ["--prefix", str(tmp_path / "run"), "--teacher", "clinic", "--conversations", str(visits)]
    line = ["plan", *shared, "--config", str(changed_config(tmp_path, server))]
    refused(medkd(*line, environment=key), 64, "--contains-phi: missing", "patient data")
    refused(medkd(*line, "--contains-phi", "perhaps", environment=key), 64, "--contains-phi")
    refused(medkd(*line, "--contains-phi", "yes", environment=key), 78, "teacher_models.clinic.phi_agreement", "set it to true")
    agreed = ["plan", *shared, "--config", str(changed_config(tmp_path, server, phi_agreement=True)), "--contains-phi", "yes"]
    assert medkd(*agreed, environment=key).returncode == 0
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["source"]["contains_phi"] is True
    assert server.counters.stats()["billed_total"] == 1, "preflight's call, about an invented patient"


def test_a_record_schema_that_cannot_be_honoured_is_refused_with_78_naming_file_and_place(tmp_path: Path) -> None:
    document = json.loads((SHIPPED.parent / "medication_orders.json").read_text())
    document["properties"]["orders"]["items"]["properties"]["reason"]["minimum"] = 1
    file, absent = tmp_path / "mine.json", tmp_path / "absent.json"
    file.write_text(json.dumps(document))
    refused(
        medkd("estimate", "--record-schema", str(file)),
        78,
        f"--record-schema {file}: record schema: orders.items.reason.minimum: keyword has no effect here; allowed: type",
    )
    for named, said in (
        (absent, f"{absent}: cannot be read .*; expected a JSON Schema file, or patient_record"),
        (__file__, "not JSON"),
    ):
        with pytest.raises(ConfigError, match=f"^--record-schema .*{said}"):
            record_schema(build_parser().parse_args(["estimate", "--record-schema", str(named)]))
    named_one = build_parser().parse_args(["estimate", "--record-schema", "patient_record"])
    assert record_schema(named_one) is record_schema(build_parser().parse_args(["estimate"])) is PATIENT_RECORD


def test_a_memory_prefix_cannot_hold_a_run_of_processes(tmp_path: Path) -> None:
    refused(medkd(*run_line("memory://run", changed_config(tmp_path))), 78, "memory://")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["nonsense"],
        ["run", "--prefix", "x", "--num-samples", "-3"],
        ["generate", "--prefix", "x", "--budget-usd", "lots"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_leaves_with_64(arguments: list[str]) -> None:
    refused(medkd(*arguments), 64, "--help")


def test_the_earlier_generate_command_line_still_works(tmp_path: Path, server: Server) -> None:
    config = changed_config(tmp_path, server, prices={"input": 0.1, "output": 0.4})
    output = tmp_path / "x.jsonl"
    arguments = f"--teacher_model clinic --num_samples 6 --topic hypertension --output_path {output} --validate".split()
    finished = medkd("generate", "--config", str(config), *arguments, environment={"CLINIC_API_KEY": "right-key"})
    assert finished.returncode == 0, finished.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 6 and all(list(row) == ["instruction", "input", "output"] for row in rows)
    assert "6 rows valid, 0 not" in finished.stdout
    assert "stops at $" in finished.stderr, "a bound is set where none was named"
    again = medkd("generate", "--config", str(config), *arguments, environment={"CLINIC_API_KEY": "right-key"})
    assert again.returncode == 0
    assert server.counters.stats()["bodies_billed_more_than_once"] == 0


def test_a_command_beside_the_simulator_finds_it_and_hands_on_its_exit_code() -> None:
    code = "import os, sys, urllib.request; urllib.request.urlopen(os.environ['MEDKD_TEACHER_URL'] + '/models'); sys.exit(7)"
    finished = medkd("simulate", "--port", "0", "--", sys.executable, "-c", code)
    assert finished.returncode == 7, finished.stderr


def test_the_shipped_configuration_is_valid() -> None:
    finished = medkd("config", "check")
    assert finished.returncode == 0 and "122 topics" in finished.stdout


def test_preflight_says_all_that_is_wrong_and_keeps_nothing(server: Server, tmp_path: Path) -> None:
    config, prefix = changed_config(tmp_path, server), tmp_path / "run"
    line = ["preflight", "--config", str(config), "--prefix", str(prefix), "--teacher", "clinic", "--num-samples", "8"]
    good = medkd(*line, environment={"CLINIC_API_KEY": "right-key"})
    assert good.returncode == 0, good.stderr
    checks = ["configuration", "terms", "student", "plan", "patient data", "store", "prefix", "budget", "data sets"]
    checks += ["weights", "memory"]
    assert [text[6:20].strip() for text in good.stdout.splitlines()] == [*checks, "key", "model", "first call"]
    assert all(text.startswith("ok ") for text in good.stdout.splitlines())
    assert not [path for path in prefix.rglob("*") if path.is_file()], "a free teacher's call leaves no booking"
    refused = medkd(*line, environment={"CLINIC_API_KEY": "wrong-key"})
    assert refused.returncode == 77 and "skip  first call" in refused.stdout
    small = medkd(*line, "--gpu-memory-gib", "0.5", "--world-size", "2", environment={"CLINIC_API_KEY": "right-key"})
    assert small.returncode == 78 and "skip  first call" in small.stdout
    assert "GiB on each of 2 GPUs, got 0.5 GiB; what would help" in small.stderr
    several = medkd(*line, "--num-shards", "9", "--student", "t6")
    assert several.returncode == 78
    failed = [text[6:20].strip() for text in several.stdout.splitlines() if text.startswith("FAIL")]
    assert failed == ["student", "budget", "key"]
    assert "preflight: 3 of 14 checks failed" in several.stderr and "CLINIC_API_KEY" in several.stderr
    assert medkd("plan", *line[1:], "--num-shards", "2", environment={"CLINIC_API_KEY": "right-key"}).returncode == 0
    other = medkd(*line, "--num-shards", "4", environment={"CLINIC_API_KEY": "right-key"})
    assert other.returncode == 78 and "was cut into another number of shards" in other.stderr


def test_an_estimate_asks_nobody_and_says_what_it_rests_on(tmp_path: Path) -> None:
    line = ["estimate", "--teacher", "deepseek", "--num-samples", "2000", "--teacher-url", "http://127.0.0.1:9/v1"]
    shown = medkd(*line)
    assert shown.returncode == 0, shown.stderr
    assert "calls     4,000" in shown.stdout and "rests on  built: the prompts of 20 samples" in shown.stdout
    found = json.loads(medkd(*line, "--json").stdout)
    assert (found["calls"], found["samples"]) == (4000, 2000)
    refused(medkd(*line, "--from", str(tmp_path / "none")), 78, "--from: ", "is no run")
    assert 0 < found["cheapest_usd"] <= found["cost_usd"] <= found["budget_usd"]
    assert found["hours"] == max(found["hours_by_limit"].values()) > 0


def test_a_run_is_approved_where_it_is_held_and_nowhere_else(tmp_path: Path, server: Server) -> None:
    refused(medkd("approve", "--prefix", str(tmp_path / "mistyped")), 78, "--prefix: ", "is no run")
    assert not (tmp_path / "mistyped").exists()
    store = open_store(str(tmp_path / "run"))
    planned(store, simulated(server), samples=4)
    assert "not held; nothing to approve" in medkd("approve", "--prefix", store.url).stdout
    control.write_control(store, control.Control(state="hold", reason="too many rejects"))
    assert "was hold (too many rejects); runs now" in medkd("approve", "--prefix", store.url).stdout
    assert control.read_control(store).state == "run"
