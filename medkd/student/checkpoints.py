"""Checkpoints of a training in the store: every rank writes its part, `LATEST` comes last.

Under a student's folder:
    students/<name>/checkpoints/step-000200/   state.json, DeepSpeed's files, one random state a rank
    students/<name>/checkpoints/LATEST         the name of the newest whole checkpoint
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from medkd.errors import ConfigError
from medkd.store import layout
from medkd.store.files import Store
from medkd.student.engine import Position
from medkd.student.ranks import Ranks
from medkd.telemetry import event

_RANK_OF_FILE = re.compile(r"(?:zero_pp_rank|random)_(\d+)")


class Checkpoints:
    """The checkpoints of one student on these ranks. All methods are called on all ranks together."""

    def __init__(self, store: Store, student_name: str, ranks: Ranks, *, keep: int, identity: dict[str, Any]) -> None:
        """identity: what must be equal for a checkpoint to be resumed (world size, ZeRO stage, tokens, ...)."""
        self._store, self._ranks, self._keep = store, ranks, keep
        self._folder = checkpoints_folder(student_name)
        self._scratch = ranks.folder / "checkpoints"
        self._identity = identity

    def save(self, engine: Any, position: Position) -> None:
        """Store the whole state of training at this position."""
        started, tag = time.monotonic(), f"step-{position.step:06d}"
        engine.save_checkpoint(str(self._scratch), tag=tag, save_latest=False)
        local = self._scratch / tag
        torch.save(_random_state(), local / f"random_{self._ranks.rank:05d}.pt")
        self._upload_mine(local, tag)
        dist.barrier()
        if self._ranks.rank == 0:
            state = {"format": 1, **asdict(position), **self._identity}
            self._store.replace(f"{self._folder}/{tag}/state.json", (json.dumps(state, indent=1) + "\n").encode())
            self._store.replace(f"{self._folder}/LATEST", f"{tag}\n".encode())
            self._forget_old()
            event("checkpoint saved", step=position.step, seconds=round(time.monotonic() - started, 2))
        if self._ranks.local_rank == 0:
            shutil.rmtree(local)

    def resume(self, engine: Any) -> Position:
        """Load the newest checkpoint into the engine; the start where there is none.

        ConfigError where it belongs to another data set, student or number of ranks.
        """
        tag = self._latest()
        if tag is None:
            return Position()
        state = json.loads(self._store.read(f"{self._folder}/{tag}/state.json"))
        self._check(state, tag)
        if self._ranks.local_rank == 0:
            self._store.download(f"{self._folder}/{tag}", self._scratch / tag)
        dist.barrier()
        engine.load_checkpoint(str(self._scratch), tag=tag, load_lr_scheduler_states=False)
        _set_random_state(torch.load(self._scratch / tag / f"random_{self._ranks.rank:05d}.pt", weights_only=True))
        dist.barrier()
        if self._ranks.local_rank == 0:
            shutil.rmtree(self._scratch / tag)
        if self._ranks.rank == 0:
            event("training resumed", step=state["step"])
        return Position(**{field.name: state[field.name] for field in fields(Position)})

    def _latest(self) -> str | None:
        try:
            return self._store.read(f"{self._folder}/LATEST").decode().strip()
        except FileNotFoundError:
            return None

    def _check(self, state: dict[str, Any], tag: str) -> None:
        for key, expected in self._identity.items():
            if state[key] != expected:
                raise ConfigError(
                    f"{self._store.url}/{self._folder}/{tag}: {key} was {state[key]!r}, now it is {expected!r}; "
                    f"go on as it was, or delete {self._folder} to start again"
                )

    def _upload_mine(self, local: Path, tag: str) -> None:
        """Upload this rank's files; rank 0 also those that belong to no rank."""
        mine = local.with_name(f"{tag}-{self._ranks.rank}")
        mine.mkdir()
        for file in local.iterdir():
            match = _RANK_OF_FILE.search(file.name)
            if file.is_file() and (int(match[1]) if match else 0) == self._ranks.rank:
                file.rename(mine / file.name)
        self._store.upload(mine, f"{self._folder}/{tag}")
        shutil.rmtree(mine)

    def _forget_old(self) -> None:
        files = self._store.list_files(self._folder)
        tags = sorted({file.path.split("/")[-2] for file in files if "/step-" in file.path})
        for file in files:
            if file.path.split("/")[-2] in tags[: -self._keep]:
                self._store.delete(file.path)


def checkpoints_folder(student_name: str) -> str:
    return f"{layout.student_folder(student_name)}/checkpoints"


def delete_checkpoints(store: Store, student_name: str) -> None:
    """Remove the checkpoints of a training that is complete, what points at them first."""
    files = [file.path for file in store.list_files(checkpoints_folder(student_name))]
    for path in sorted(files, key=lambda path: not path.endswith("/LATEST")):
        store.delete(path)


def _random_state() -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
