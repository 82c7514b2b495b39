"""Checkpoints of a training in the store: every rank stores its part while training goes on, `LATEST` comes last.

Under a student's folder:
    students/<name>/checkpoints/step-000200/   state.json, DeepSpeed's files, one random state a rank
    students/<name>/checkpoints/LATEST         the name of the newest whole checkpoint

A save copies the states to host memory, which is all that training waits for. A thread of each rank then stores the copy; once
all ranks have said (with the loss, at the end of a step) that theirs is stored, rank 0 writes `state.json` and `LATEST` and
deletes old checkpoints. What is not named by `LATEST` or before it does not exist.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.distributed as dist

from medkd.errors import ConfigError
from medkd.store import layout
from medkd.store.files import Store, StoredFile
from medkd.student.background import Background
from medkd.student.position import Position
from medkd.student.ranks import Ranks
from medkd.student.snapshots import copied, take_snapshot
from medkd.student.universal import NAMES_FILE, load_unsplit, to_universal, trained_names, unsplit_to_universal
from medkd.student.waiting import wait_for_all
from medkd.telemetry import event

_UNIVERSAL = "universal"


@dataclass
class _Saving:
    """A checkpoint on its way to the store."""

    tag: str
    state: dict[str, Any]
    started: float
    held_up: float
    """Seconds that training waited for the copy."""
    publishing: bool = False


@dataclass(frozen=True)
class Found:
    """A whole checkpoint in the store. universal: it comes from another number of ranks or ZeRO stage, and is converted."""

    tag: str
    state: dict[str, Any]
    universal: bool


class Checkpoints:
    """The checkpoints of one student on these ranks. All methods are called on all ranks together."""

    def __init__(
        self, store: Store, student_name: str, ranks: Ranks, *, keep: int, identity: dict[str, Any], zero_stage: int
    ) -> None:
        """identity: what must be equal for a checkpoint to be resumed (recipe, tokens, ...)."""
        self._shape = {"world_size": ranks.world_size, "zero_stage": zero_stage}
        self._store, self._ranks, self._keep = store, ranks, keep
        self._folder = checkpoints_folder(student_name)
        self._scratch = ranks.folder / "checkpoints"
        self._identity = identity
        self._background = Background()
        self._saving: _Saving | None = None
        self.saved_step = 0
        """Of the newest whole checkpoint."""
        self.save_seconds: float | None = None
        """What the last save took until it was whole, on rank 0; None before the first."""

    def save(self, engine: Any, position: Position) -> None:
        """Begin to store the whole state of training at this position; waits for the save before this one."""
        self.finish()
        started, tag = time.monotonic(), f"step-{position.step:06d}"
        files = take_snapshot(engine, self._scratch, self._ranks.rank)
        if self._shape["zero_stage"] == 0 and self._ranks.rank == 0:
            files[NAMES_FILE] = trained_names(engine)
        files[f"random_{self._ranks.rank:05d}.pt"] = _random_state()
        state = {"format": 1, **asdict(position), **self._identity, **self._shape}
        self._saving = _Saving(tag, state, started, time.monotonic() - started)
        self._background.start(lambda: self._upload(files, tag))

    def stored(self) -> bool:
        """Whether this rank's part of the checkpoint being saved is in the store. Raises what kept it from there."""
        return self._background.done() and self._saving is not None

    def ranks_stored(self, count: int) -> None:
        """Be told how many ranks have stored their part: when all have, the checkpoint becomes visible."""
        saving = self._saving
        if saving is None or saving.publishing or count < self._ranks.world_size:
            return
        saving.publishing = True
        if self._ranks.rank == 0:
            self._background.start(lambda: self._publish(saving))
        else:
            self._saved(saving)

    def finish(self) -> None:
        """Wait until the checkpoint being saved, if any, is whole."""
        saving = self._saving
        if saving is None:
            return
        self._background.wait()
        wait_for_all()
        self.ranks_stored(self._ranks.world_size)
        self._background.wait()
        wait_for_all()
        self._saving = None

    def leave(self, engine: Any, position: Position, seconds: float) -> bool:
        """Save before leaving, as far as that fits into so many seconds; whether this position is saved.

        What was begun is given the time it needs. A save whose like took longer than what is left is not begun.
        """
        deadline = time.monotonic() + seconds
        if self._saving is not None:
            if not self._all(self._background.wait(max(0.0, deadline - time.monotonic()))):
                return False
            self.finish()
        if self.saved_step == position.step:
            return True
        fits = self.save_seconds is None or self.save_seconds <= deadline - time.monotonic()
        if not self._all(fits or self._ranks.rank != 0):
            return False
        self.save(engine, position)
        self.finish()
        return True

    def find(self) -> Found | None:
        """The newest whole checkpoint, if there is one; what saves left that never became whole is deleted.

        ConfigError where it belongs to another data set or recipe.
        """
        tag = self._latest()
        found = None
        if tag:
            state = json.loads(self._store.read(f"{self._folder}/{tag}/state.json"))
            self._check(state, tag)
            # Stage 0 splits nothing, so that its ranks may be as many as they like.
            split = state["zero_stage"] or self._shape["zero_stage"]
            found = Found(tag, state, universal=bool(split) and any(state[key] != now for key, now in self._shape.items()))
        if self._ranks.rank == 0:
            self._clean(tag)
        dist.barrier()
        return found

    def resume(self, engine: Any, found: Found) -> Position:
        """Load the checkpoint into the engine, which was made for it."""
        tag, state = found.tag, found.state
        started = time.monotonic()
        if self._ranks.local_rank == 0:
            self._store.download(f"{self._folder}/{tag}", self._scratch / tag)
            if found.universal:
                convert = to_universal if state["zero_stage"] else unsplit_to_universal
                convert(self._scratch / tag, self._scratch / _UNIVERSAL)
        wait_for_all()
        if found.universal and not self._shape["zero_stage"]:
            load_unsplit(engine, self._scratch / _UNIVERSAL)
        else:
            self._load(engine, _UNIVERSAL if found.universal else tag)
        random_state = self._scratch / tag / f"random_{self._ranks.rank:05d}.pt"
        if state["world_size"] == self._ranks.world_size:
            _set_random_state(torch.load(random_state, weights_only=True))
        else:
            torch.manual_seed(hash((state["step"], self._ranks.rank)))
        dist.barrier()
        if self._ranks.local_rank == 0:
            shutil.rmtree(self._scratch)
        if self._ranks.rank == 0:
            event("training resumed", step=state["step"], seconds=round(time.monotonic() - started, 2), universal=found.universal)
        self.saved_step, self.save_seconds = state["step"], state.get("save_seconds")
        return Position(**{field.name: state[field.name] for field in fields(Position) if field.name in state})

    def _load(self, engine: Any, tag: str) -> None:
        decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
        engine.load_checkpoint(str(self._scratch), tag=tag, load_lr_scheduler_states=False)
        # ZeRO 3 takes the first group's settings for all groups' then.
        for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        if tag == _UNIVERSAL:
            # DeepSpeed gives all parameters the same counter, which then counts once for each.
            for one in engine.optimizer.optimizer.state.values():
                one["step"] = copied(one["step"])

    def _upload(self, files: dict[str, Any], tag: str) -> None:
        """Store this rank's files, one after the other: scratch space holds one at a time."""
        local = self._scratch / f"{tag}-{self._ranks.rank}"
        while files:
            name, state = files.popitem()
            local.mkdir(parents=True)
            torch.save(state, local / name)
            del state
            self._store.upload(local, f"{self._folder}/{tag}")
            shutil.rmtree(local)

    def _publish(self, saving: _Saving) -> None:
        seconds = time.monotonic() - saving.started
        saving.state["save_seconds"] = round(seconds, 3)
        text = json.dumps(saving.state, indent=1) + "\n"
        self._store.replace(f"{self._folder}/{saving.tag}/state.json", text.encode())
        self._store.replace(f"{self._folder}/LATEST", f"{saving.tag}\n".encode())
        self._saved(saving)
        event(
            "checkpoint saved", step=self.saved_step, seconds=round(seconds, 3), training_waited_seconds=round(saving.held_up, 3)
        )
        self._forget_old()

    def _saved(self, saving: _Saving) -> None:
        self.saved_step, self.save_seconds = saving.state["step"], time.monotonic() - saving.started

    def _all(self, mine: bool) -> bool:
        """Whether all ranks say yes."""
        device = torch.device("cuda", self._ranks.local_rank) if dist.get_backend() == "nccl" else torch.device("cpu")
        said = torch.tensor(int(mine), device=device)
        dist.all_reduce(said, dist.ReduceOp.MIN)
        return bool(said.item())

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

    def _forget_old(self) -> None:
        """Delete all but the newest checkpoints."""
        whole = sorted({_tag_of(file.path) for file in self._files() if file.path.endswith("/state.json")})
        self._delete_all_but(set(whole[-self._keep :]))

    def _clean(self, latest: str | None) -> None:
        """Delete what saves left that never became whole: training comes by there again, perhaps with fewer ranks."""
        whole = {_tag_of(file.path) for file in self._files() if file.path.endswith("/state.json")}
        self._delete_all_but({tag for tag in whole if latest and tag <= latest})

    def _delete_all_but(self, kept: set[str]) -> None:
        for file in sorted(self._files(), key=lambda file: not file.path.endswith("/state.json")):
            if _tag_of(file.path) not in kept:
                self._store.delete(file.path)

    def _files(self) -> list[StoredFile]:
        return [file for file in self._store.list_files(self._folder) if _tag_of(file.path).startswith("step-")]


def _tag_of(path: str) -> str:
    return path.split("/")[-2]


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
