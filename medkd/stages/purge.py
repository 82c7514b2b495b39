"""`medkd purge`: remove a run, with everything it wrote, and say what that was.

Only what a run itself writes is touched; other files under the prefix stay, and are named by their number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medkd.errors import ConfigError
from medkd.stages import ownership
from medkd.stages.plan import load_plan
from medkd.store import layout
from medkd.store.files import Store, StoredFile
from medkd.store.journal import OpenBatch, replay_shard
from medkd.teacher.batches import Batches

# What a shard says in its progress file while it works; one that was killed has said nothing for longer.
_SHARD_FRESH_SECONDS = 120.0
_ENDED = ("complete", "stopped", "failed")
_PROBE = ".probe-"


@dataclass(frozen=True)
class Part:
    """One part of a run under its prefix: a folder, or a file beside the folders."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Contents:
    """What lies under a prefix."""

    parts: tuple[Part, ...]
    """Of the run, by name."""
    paths: tuple[str, ...]
    """Of the run, in the order in which they are removed."""
    others: int
    """Files that no run writes."""

    @property
    def files(self) -> int:
        return sum(part.files for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


def contents(store: Store) -> Contents:
    """What a purge would remove; ConfigError where no run lies under the prefix."""
    files = store.list_files(unfinished=True)
    own = [file for file in files if _part_of(file.path) in layout.PARTS or file.path.startswith(_PROBE)]
    if not any(file.path in (layout.PLAN, layout.OWNER, layout.PLAN_MANIFEST) for file in own):
        raise ConfigError(f"{store.url}: no run lies here, nothing was removed; --prefix names the folder that holds plan.json")
    names = sorted({_part_of(file.path) for file in own})
    parts = tuple(_part(name, [file for file in own if _part_of(file.path) == name]) for name in names)
    return Contents(parts, tuple(sorted((file.path for file in own), key=_when)), len(files) - len(own))


def check_not_live(store: Store) -> None:
    """ConfigError where somebody works on the run: its owner, or one of its shards, gave a sign of life a moment ago."""
    ownership.check_free(store)
    for file in store.list_files(layout.GENERATE):
        if not file.path.endswith("/progress.json"):
            continue
        try:
            progress = json.loads(store.read(file.path))
            age = time.time() - float(progress["at"])
        except (FileNotFoundError, ValueError, LookupError):
            continue
        if progress.get("state") not in _ENDED and age < _SHARD_FRESH_SECONDS:
            raise ConfigError(
                f"{store.url}: shard {progress.get('shard')} is at work (last sign {age:.0f} s ago), nothing was removed; stop "
                "it first, or pass --take-over if it is dead"
            )


def open_batches(store: Store) -> dict[str, OpenBatch]:
    """Provider batches by tag whose answers are not all in the journals; the plan is needed to read those."""
    if not store.exists(layout.PLAN_MANIFEST):
        return {}
    plan, cut = load_plan(store)
    replays = (replay_shard(store, shard, plan.hash) for shard in range(cut.num_shards))
    return {tag: batch for replay in replays for tag, batch in replay.batches.items() if not batch.ended}


def cancel_batches(batches: Batches, open_now: Mapping[str, OpenBatch]) -> int:
    """Cancel them with their provider and delete what they left there; how many there were."""
    cancelled = 0
    known = {batch.id for batch in open_now.values()}
    for tag, batch in open_now.items():
        found = batches.state(batch.id) if batch.id else batches.find(tag, len(batch.keys), batch.at, known)
        if found is not None:
            if not found.ended:
                batches.cancel(found.id)
            batches.forget(batches.state(found.id))
            cancelled += 1
    return cancelled


def purge(store: Store, owner: str, found: Contents, on_progress: Callable[[int], None] = lambda removed: None) -> None:
    """Remove the run; the same call again goes on where one was interrupted.

    The plan goes first, so that no stage begins on half a run, and the owner's entry last, so that nobody takes the prefix.
    """
    ownership.take(store, owner, take_over=True)
    paths = [path for path in found.paths if path != layout.OWNER]
    group = 500
    for start in range(0, len(paths), group):
        store.delete_many(paths[start : start + group])
        on_progress(min(start + group, len(paths)))
    store.delete(layout.OWNER)
    store.remove_empty_folders()


def _part_of(path: str) -> str:
    """The folder or file right below the prefix; what an unfinished write left counts as the file it would have become."""
    name = path.partition("/")[0]
    return name[1:].rpartition(".")[0] if name.startswith(".") and not name.startswith(_PROBE) else name


def _part(name: str, files: list[StoredFile]) -> Part:
    return Part(name, len(files), sum(file.bytes for file in files))


def _when(path: str) -> tuple[bool, bool, str]:
    return path not in (layout.PLAN_MANIFEST, layout.PLAN), path == layout.OWNER, path
