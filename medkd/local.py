"""The stages of a run as processes on this machine: what `medkd run` does.

The same verbs with the same flags as pods run, released by the same `next_action` as on a cluster; shards in parallel. Whatever
ends it, the same command again continues.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from medkd.config import Bars, ModelConfigs, StudentConfig, config_hash
from medkd.errors import ConfigError, MedkdError, StoppedError
from medkd.stages import control, ownership, progress, standing, tallies
from medkd.stages.generate import shard_states
from medkd.stages.plan import Layout, load_plan
from medkd.stages.prepare import tokens_manifest_path
from medkd.stages.sequence import STAGES, Action, Phase, next_action
from medkd.store import layout
from medkd.store.files import LocalStore, MemoryStore, Store
from medkd.student.hub import copied_weights, is_hub_model

# A shard or trainer that was killed or left to be retried is started again this often, as on a cluster.
MAX_RESTARTS = 6
_RETRIED = (69, 75)
_HEARTBEAT_SECONDS = 60.0


class StageFailedError(MedkdError):
    """A stage's process left with an exit code that ends the run; the run leaves with the same code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run goes on this machine. Flags are handed on to the stages' command lines as they are."""

    student: str
    num_shards: int
    parallel: int
    """Shards that run at once."""
    start_from: str | None
    owner: str
    shared_flags: list[str]
    plan_flags: list[str]
    teacher_flags: list[str]
    prepare_flags: list[str]
    gold_flags: list[str]
    ranks: int | None


def run(store: Store, configs: ModelConfigs, options: RunOptions, stop: threading.Event) -> int:
    """Bring the run under the prefix to its end, from wherever it stands; 0 when all stages are complete.

    Raises StoppedError after `stop` was set and StageFailedError where a stage failed; both leave a run that can go on.
    """
    if isinstance(store, MemoryStore):
        raise ConfigError("--prefix: memory:// ends with each stage's process; use a folder or s3://bucket/path")
    ownership.take(store, options.owner, take_over="--take-over" in options.plan_flags)
    local_run = _LocalRun(store, configs.student(options.student), configs.bars, options, stop)
    try:
        if options.start_from:
            local_run.forget(options.start_from)
        local_run.work()
    finally:
        local_run.end_processes()
        ownership.release(store, options.owner)
    where = Path(store.root, layout.REPORT).resolve() if isinstance(store, LocalStore) else f"{store.url}/{layout.REPORT}"
    if verdict := progress.verdict(store, options.student):
        print(f"\nstudent {options.student}: {verdict}", end="")
    print(f"\nrun complete in {local_run.elapsed}. Open the report: {where}")
    return 0


@dataclass
class _Process:
    """One running process of a stage."""

    popen: subprocess.Popen[bytes]
    log: Path


@dataclass
class _Stage:
    """What this run knows of a stage it released."""

    waiting: list[int] = field(default_factory=list)
    running: dict[int, _Process] = field(default_factory=dict)
    restarts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    started: float = 0.0


class _LocalRun:
    def __init__(self, store: Store, student: StudentConfig, bars: Bars, options: RunOptions, stop: threading.Event) -> None:
        self.store = store
        self.student = student
        self.wanted = standing.Wanted(student=options.student, config_hash=config_hash(student), bars=bars)
        self.options = options
        self.stop = stop
        self.logs = Path(store.root, "logs") if isinstance(store, LocalStore) else Path(tempfile.mkdtemp(prefix="medkd-logs-"))
        self.logs.mkdir(parents=True, exist_ok=True)
        self.stage: _Stage | None = None
        self.stage_name = ""
        # Verified once; a stage that ended during this run is verified when it ends.
        self.done: dict[str, bool] = {}
        self.screen = Screen(sys.stderr)
        self.began = time.monotonic()
        self.last_beat = time.monotonic()

    @property
    def elapsed(self) -> str:
        return _duration(time.monotonic() - self.began)

    def work(self) -> None:
        while True:
            action = self._next()
            if action.kind == "done":
                return
            if action.kind == "fail":
                raise MedkdError(action.reason)
            if action.kind == "release":
                self._release(action.stage)
            self._watch()

    def forget(self, first: str) -> None:
        """Let the stage and those after it count as not done. What was paid for stays: shards are verified, not bought again."""
        later = STAGES[STAGES.index(first) :]
        paths = {
            "prepare": [layout.DATASET_MANIFEST, tokens_manifest_path(self.options.student)],
            "train": [self._student_path("train/manifest.json")],
            "evaluate": [self._student_path("evaluate/manifest.json")],
        }
        for stage in later:
            for path in paths.get(stage, []):
                self.store.delete(path)
        if "train" in later:
            for file in self.store.list_files(self._student_path("checkpoints")):
                self.store.delete(file.path)

    def end_processes(self) -> None:
        """Ask what still runs to stop, and wait until it has made durable what it holds."""
        processes = list(self.stage.running.values()) if self.stage else []
        for process in processes:
            process.popen.terminate()
        for process in processes:
            try:
                process.popen.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.popen.kill()

    # --- what stands --------------------------------------------------------------------------------------------------

    def _next(self) -> Action:
        phases: dict[str, Phase] = {}
        verified: dict[str, bool] = {}
        for stage in STAGES:
            done = self.done[stage] if self.done.get(stage) else self._stands(stage)
            self.done[stage] = done
            phases[stage] = "succeeded" if done else "waiting"
            verified[stage] = done
            if not done:
                phases.update({later: "waiting" for later in STAGES if later not in phases})
                verified.update({later: False for later in STAGES if later not in verified})
                break
        return next_action(phases, verified)

    def _stands(self, stage: str) -> bool:
        """Whether the stage's work is there, whole, and of this configuration."""
        if stage == "plan" and is_hub_model(self.student) and not copied_weights(self.store, self.student):
            return False
        return not standing.shortfall(self.store, stage, self.wanted)

    def _student_path(self, name: str) -> str:
        return f"{layout.student_folder(self.options.student)}/{name}"

    def _layout(self) -> Layout:
        return load_plan(self.store)[1]

    # --- processes ----------------------------------------------------------------------------------------------------

    def _release(self, name: str) -> None:
        self.stage_name = name
        self.stage = _Stage(started=time.monotonic())
        if name == "generate":
            shards = range(self._layout().num_shards)
            self.stage.waiting = [shard for shard in shards if not self.store.exists(layout.shard_file(shard, "manifest.json"))]
        else:
            self.stage.waiting = [0]
        self.screen.heading(name)

    def _watch(self) -> None:
        """Until the released stage has no process left; raises where it failed or the run was told to stop."""
        assert self.stage
        while self.stage.waiting or self.stage.running:
            if self.stop.is_set():
                self.end_processes()
                self.screen.end(self._progress_line())
                raise StoppedError("stopped; the same command goes on from here")
            while self.stage.waiting and len(self.stage.running) < self.options.parallel:
                self._start(self.stage.waiting.pop(0))
            self.stop.wait(0.1)
            for index, process in list(self.stage.running.items()):
                code = process.popen.poll()
                if code is not None:
                    del self.stage.running[index]
                    self._ended(index, code, process.log)
            self._steer()
            self.screen.show(self._progress_line())
        self.screen.end(f"{self._progress_line()}  {_duration(time.monotonic() - self.stage.started)}")
        if self.stage.failed:
            message = "; ".join(self.stage.failed.values())
            raise StageFailedError(message, 65)
        if self.stage_name == "generate":
            self._say_short_cells()
        if not self._stands(self.stage_name):
            raise MedkdError(f"stage {self.stage_name} ended without a manifest that verifies; see {self.logs}")

    def _say_short_cells(self) -> None:
        finished = standing.shard_manifests(self.store, range(self._layout().num_shards))
        found = tallies.merged_short_cells(manifest.counts["short_cells"] for manifest in finished.values())
        for line in tallies.shown_cells(found):
            self.screen.note(f"fell short: {line}")

    def _start(self, index: int) -> None:
        assert self.stage
        log = self.logs / (f"generate-{index:05d}.log" if self.stage_name == "generate" else f"{self.stage_name}.log")
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches only this process, which then stops the stages in order.
            popen = subprocess.Popen(
                self._command(index), stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.stage.running[index] = _Process(popen, log)

    def _command(self, index: int) -> list[str]:
        options = self.options
        flags = {
            "plan": [*options.plan_flags, *options.teacher_flags, "--owner", options.owner],
            "generate": [
                *options.teacher_flags,
                "--shard-index",
                str(index),
                "--parallel",
                str(options.parallel),
                "--progress-seconds",
                "1",
            ],
            "prepare": ["--student", options.student, *options.prepare_flags],
            "train": ["--student", options.student, *(["--ranks", str(options.ranks)] if options.ranks else [])],
            "evaluate": ["--student", options.student, *options.gold_flags],
        }
        return [sys.executable, "-m", "medkd", self.stage_name, *options.shared_flags, "--log", "json", *flags[self.stage_name]]

    def _ended(self, index: int, code: int, log: Path) -> None:
        assert self.stage
        if code == 0:
            return
        restarts = self.stage.restarts.get(index, 0)
        if (code < 0 or code in _RETRIED) and restarts < MAX_RESTARTS and not self.stop.is_set():
            self.stage.restarts[index] = restarts + 1
            self.stage.waiting.append(index)
            self.screen.note(f"{log.stem} ended with {_shown_code(code)}; starting it again ({restarts + 1} of {MAX_RESTARTS})")
            return
        message = _last_error(log) or f"{log.stem} ended with {_shown_code(code)}; see {log}"
        if code == 65 and self.stage_name == "generate":
            # Bad data of one shard: the others finish first.
            self.stage.failed[index] = message
            return
        self.end_processes()
        raise StageFailedError(message, code if code > 0 else 1)

    def _steer(self) -> None:
        """What the driver does on a cluster: the heartbeat, and the decision after the pilot."""
        now = time.monotonic()
        if now - self.last_beat > _HEARTBEAT_SECONDS:
            self.last_beat = now
            ownership.beat(self.store, self.options.owner)
        if self.stage_name != "generate" or control.read_control(self.store).state != "pilot":
            return
        decision = control.decide_pilot(self.store)
        if decision:
            control.write_control(self.store, decision)
            self.screen.note(f"pilot: {decision.reason}")
            if decision.state == "hold":
                self.end_processes()
                raise StoppedError(
                    f"held: {decision.reason}. Look at the samples, then: medkd approve --prefix {self.store.url}, and run again"
                )

    # --- what a person sees -------------------------------------------------------------------------------------------

    def _progress_line(self) -> str:
        assert self.stage
        if self.stage_name == "generate":
            return _generate_line(
                list(shard_states(self.store, self._layout().num_shards)), time.monotonic() - self.stage.started
            )
        if self.stage_name == "train":
            return _train_line(self.store, self._student_path("train/progress.json"))
        return ""


def _generate_line(states: list[dict[str, Any]], seconds: float) -> str:
    if not states:
        return "starting shards"
    total = sum(state["total"] for state in states)
    accepted = sum(state["accepted"] for state in states)
    calls = sum(state["calls"] for state in states)
    running = [state for state in states if state["state"] != "complete"]
    parts = [
        f"{accepted:,}/{total:,} accepted",
        f"{sum(state['rejected'] for state in states):,} rejected",
        f"{calls / max(1.0, seconds):,.0f} calls/s",
        f"${sum(state['spent_usd'] for state in states):.2f}",
        f"{len(states) - len(running)}/{len(states)} shards done",
    ]
    parked = [state for state in running if state["state"] == "parked"]
    if parked:
        until = max((state["parked_until"] or 0.0) for state in parked)
        parts.append(f"{len(parked)} parked" + (f" until {time.strftime('%H:%M:%S', time.localtime(until))}" if until else ""))
        if any(state["parked_for"] == "pilot" for state in parked):
            parts.append("the first samples show what the rest will cost")
    return ", ".join(parts)


def _train_line(store: Store, path: str) -> str:
    try:
        progress = json.loads(store.read(path))
    except FileNotFoundError:
        return "starting ranks"
    loss = f", loss {progress['loss']:.3f}" if progress.get("loss") is not None else ""
    return f"step {progress['step']:,}/{progress['total_steps']:,}{loss}"


class Screen:
    """Progress for a person: one line that is rewritten on a terminal, else a line now and then."""

    def __init__(self, stream: TextIO, quiet_seconds: float = 10.0) -> None:
        self.stream = stream
        self.rewrites = stream.isatty()
        self.quiet_seconds = quiet_seconds
        self.name = ""
        self.last_text = ""
        self.last_time = time.monotonic()

    def heading(self, name: str) -> None:
        self.name, self.last_text, self.last_time = name, "", time.monotonic()

    def show(self, text: str) -> None:
        if text == self.last_text or (not self.rewrites and time.monotonic() - self.last_time < self.quiet_seconds):
            return
        self.last_text, self.last_time = text, time.monotonic()
        self._write(text, end="" if self.rewrites else "\n")

    def end(self, text: str) -> None:
        self._write(text, end="\n")

    def note(self, text: str) -> None:
        self._write(text, end="\n")

    def _write(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if self.rewrites else ""
        print(f"{start}{self.name:<9} {text}", end=end, file=self.stream, flush=True)


def _stop_with_parent() -> None:
    """In a new process: ask the kernel for a SIGTERM when this program's end leaves the process an orphan."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _last_error(log: Path) -> str:
    """The error line with which a stage's process left, without the program's name."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("medkd: ")]
    return lines[-1].removeprefix("medkd: ") if lines else ""


def _shown_code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
