"""A key, a prompt or a conversation never gets out: whole runs with canaries in them, through refusals, faults, a kill and
restarts; then everything that was written is searched."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest

from medkd.simulator.server import Server
from tests.generation import start_simulator

# Each process takes seconds to start, and many times that where others keep the machine busy.
pytestmark = pytest.mark.timeout(600)

KEY = "sk-Qu4gga-Zebrafinch-Thylac1ne-0042"
WORD = "axolotlopathy"
PROMPT = ("You write realistic conversations", "You read a conversation between", "Way of speaking: ", "<conversation>")
FAULTS = (
    "prompt_echoed:0.05,refusal:0.05,not_json:0.1,duplicate_keys:0.05,hallucinate:0.05,reset_after:0.05,error_in_200:0.05,"
    "too_long:0.05,cut_body:0.05,rate_limit_ms@30,html_502:0.05,missing_usage:0.05"
)
TABLES = ("samples.parquet", "rejected.parquet", "calls.parquet")
SHIPPED = Path(__file__).parent.parent / "configs" / "model_configs.json"


@pytest.fixture
def server() -> Iterator[Server]:
    with start_simulator(api_key=KEY, latency_seconds=0.03) as server:
        yield server


class Run:
    """A run of the command line with everything that its processes said."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.prefix = folder / "run"
        self.server = server
        self.said: list[str] = []
        self.config = folder / "config.json"
        raw = json.loads(SHIPPED.read_text())
        own = {"base_url": f"{server.url}/v1", "auth": "bearer", "api_key_env": "CANARY_KEY"}
        raw["teacher_models"]["canary"] = {**raw["teacher_models"]["simulator"], **own}
        self.config.write_text(json.dumps(raw))

    def start(self, verb: str, *more: str) -> subprocess.Popen[str]:
        common = ["--prefix", str(self.prefix), "--config", str(self.config), "--log", "json", "--log-level", "DEBUG"]
        command = [sys.executable, "-m", "medkd", verb, *common, *more]
        environment = {**os.environ, "CANARY_KEY": f"{KEY}\n"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def ended(self, process: subprocess.Popen[str]) -> int:
        said, _ = process.communicate(timeout=300)
        self.said.append(said)
        return process.returncode

    def does(self, verb: str, *more: str) -> int:
        return self.ended(self.start(verb, *more))

    def set_faults(self, spec: str) -> None:
        with urlopen(Request(f"{self.server.url}/faults", data=spec.encode(), method="PUT"), timeout=60):
            pass

    def is_killed_in_the_middle(self, *generate: str) -> None:
        billed = self.server.counters.stats()["billed_total"]
        process = self.start("generate", *generate)
        deadline = time.monotonic() + 60
        while self.server.counters.stats()["billed_total"] < billed + 10 and time.monotonic() < deadline:
            assert process.poll() is None, "it was over before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        self.ended(process)

    # --- what was written -----------------------------------------------------------------------------------------------

    def may_hold_conversations(self, path: Path) -> bool:
        """The shards' tables, the data set's, and a student, whose tokenizer and weights are made of conversations."""
        if path.suffix == ".parquet":
            return path.name in TABLES or path.is_relative_to(self.prefix / "dataset")
        return path.is_relative_to(self.prefix / "students")

    def written(self) -> Iterator[tuple[str, str, bool]]:
        """(where, text, whether conversations may stand there) of all there is, compressed or not."""
        for number, said in enumerate(self.said):
            yield f"output of process {number}", said, False
        for path in sorted(self.prefix.rglob("*")):
            yield f"name of {path}", path.name, False
            if path.name.endswith(".jsonl.gz"):
                yield from self._journal(path)
            elif path.suffix == ".parquet":
                rows = pq.read_table(path).to_pylist()
                yield str(path), json.dumps(rows, ensure_ascii=False), self.may_hold_conversations(path)
            elif path.is_file():
                yield str(path), path.read_bytes().decode("utf-8", "replace"), self.may_hold_conversations(path)

    def _journal(self, path: Path) -> Iterator[tuple[str, str, bool]]:
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            entry = json.loads(line)
            if entry.get("kind") == "done":
                yield f"reply in {path}", json.dumps(entry.pop("text"), ensure_ascii=False), True
            yield str(path), json.dumps(entry, ensure_ascii=False), False

    def conversations(self) -> set[str]:
        """Pieces that give a conversation away: its longer lines, as they stand in the samples."""
        rows = [row for path in self.prefix.rglob("samples.parquet") for row in pq.read_table(path).to_pylist()]
        return {line[:60] for row in rows for line in row["input"].splitlines() if len(line) >= 30}

    def holds_no_canary(self) -> None:
        pieces = {KEY[start : start + 12] for start in range(len(KEY) - 11)}
        secret = {*PROMPT, WORD, *self.conversations()}
        for where, text, conversations_allowed in self.written():
            assert not [piece for piece in pieces if piece in text], f"{where} holds the key"
            if not conversations_allowed:
                found = [piece for piece in secret if piece in text]
                assert not found, f"{where} holds {found[:3]}"


def test_nothing_of_a_generated_run_gets_out(tmp_path: Path, server: Server) -> None:
    run = Run(tmp_path, server)
    generate = ("--teacher", "canary", "--shard-index", "0")
    assert run.does("plan", "--teacher", "canary", "--num-samples", "60", "--exchanges", "4-4") == 0, run.said
    run.set_faults("key_echoed@10-")
    assert run.does("generate", *generate) == 77
    assert "does not accept the API key" in run.said[-1]
    run.holds_no_canary()
    run.set_faults(FAULTS)
    run.is_killed_in_the_middle(*generate)
    run.holds_no_canary()
    assert list(run.prefix.rglob("*.jsonl.gz")), "the journal was there to be searched"
    assert run.does("generate", *generate) == 0, run.said[-1]
    faults = server.counters.stats()["faults"]
    assert {"key_echoed", "prompt_echoed", "refusal", "not_json"} <= set(faults), "the canaries were sent back"
    assert len(run.conversations()) > 50
    run.holds_no_canary()


def test_nothing_of_imported_transcripts_gets_out(tmp_path: Path, server: Server) -> None:
    run = Run(tmp_path, server)
    talk = "Doctor: What brings you here today?\nPatient: My {word} is back, visit {n}. I take ibuprofen 200 mg twice a day."
    lines = [json.dumps({"id": f"visit-{n}", "text": talk.format(word=WORD, n=n)}) for n in range(24)]
    lines.append(json.dumps({"id": "broken", "text": f"{WORD} without any speaker"}))
    lines.append('{"id": "torn", "text": "' + WORD)
    transcripts = tmp_path / "visits.jsonl"
    transcripts.write_text("\n".join(lines))
    run.set_faults(FAULTS)
    source = ("--conversations", str(transcripts), "--contains-phi", "no", "--conversation-column", "text", "--id-column", "id")
    assert run.does("plan", "--teacher", "canary", *source) == 0, run.said
    generate = ("--teacher", "canary", "--shard-index", "0")
    run.is_killed_in_the_middle(*generate)
    run.holds_no_canary()
    assert run.does("generate", *generate) == 0, run.said[-1]
    assert run.does("prepare") == 0, run.said[-1]
    assert run.does("report") == 0, run.said[-1]
    assert any(WORD in text for _, text, allowed in run.written() if allowed), "the transcripts are where they belong"
    run.holds_no_canary()
