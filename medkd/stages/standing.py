"""Whether a stage's work stands under the prefix: its manifests are there, and so is every file that they name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from medkd.config import Bars, DataSetBars
from medkd.stages import gaps
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import Manifest


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Whose work is asked for: the student, and the hash of its configuration where that is known.

    Without the hash, whatever configuration the student's tokens were made with counts.
    """

    student: str
    config_hash: str | None = None
    bars: Bars | None = None
    """What was asked of data set and student; None: whatever it was, its verdict counts."""


def shortfall(store: Store, stage: str, wanted: Wanted) -> str:
    """What the stage's work lacks, in words; empty where it stands."""
    if stage == "plan":
        return _lacking(store, layout.PLAN_MANIFEST)
    if stage == "generate":
        count = num_shards(store)
        return shards_shortfall(store, count, shard_manifests(store, range(count)), gaps.recorded(store))
    if stage == "prepare":
        return (
            _lacking(store, layout.DATASET_MANIFEST)
            or _of_student(store, wanted, "tokens", wanted.config_hash)
            or _of_other_bars(store, wanted)
        )
    tokens = manifests.read(store, _manifest_path(wanted, "tokens"))
    return _of_student(store, wanted, stage, wanted.config_hash or (tokens.config_hash if tokens else None))


def num_shards(store: Store) -> int:
    """Into how many shards the run was cut; FileNotFoundError before stage plan has ended."""
    return int(json.loads(store.read(layout.LAYOUT))["num_shards"])


def shard_manifests(store: Store, shards: Collection[int]) -> dict[int, Manifest]:
    """The manifests of those of the shards that have finished."""
    paths = {layout.shard_file(shard, "manifest.json"): shard for shard in shards}
    return {paths[path]: manifest for path, manifest in manifests.read_present(store, paths).items()}


def shards_shortfall(store: Store, count: int, finished: Mapping[int, Manifest], missing_allowed: Collection[int]) -> str:
    """What stage generate lacks, given the manifests of its finished shards; one listing, however many shards there are."""
    missing = [shard for shard in range(count) if shard not in finished and shard not in missing_allowed]
    if missing:
        return f"{len(missing)} of {count} shards have no manifest, the first is shard {missing[0]}"
    sizes = {file.path: file.bytes for file in store.list_files(layout.GENERATE)}
    for manifest in finished.values():
        for file in manifest.files:
            if sizes.get(file.path) != file.bytes:
                return f"{file.path} is not as its manifest says"
    return ""


def _manifest_path(wanted: Wanted, part: str) -> str:
    return f"{layout.student_folder(wanted.student)}/{part}/manifest.json"


def _of_student(store: Store, wanted: Wanted, part: str, config_hash: str | None) -> str:
    path = _manifest_path(wanted, part)
    manifest = manifests.read(store, path)
    if manifest and config_hash and manifest.config_hash != config_hash:
        return f"{path} is of another configuration of {wanted.student}"
    if manifest and part == "evaluate" and wanted.bars is not None:
        judged = [(check["what"], check["bar"]) for check in manifest.counts.get("bars", {}).get("checks", ())]
        if judged != [(bar.score, bar.at_least) for bar in wanted.bars.evaluate]:
            return f"{path} was judged by other bars"
    if manifest and not manifest.counts.get("bars", {}).get("passed", True):
        return f"{path} says that {wanted.student} is below a bar"
    return _lacking(store, path)


def _of_other_bars(store: Store, wanted: Wanted) -> str:
    if wanted.bars is None:
        return ""
    try:
        asked = json.loads(store.read(layout.DATASET_BARS)).get("asked")
    except FileNotFoundError:
        asked = DataSetBars().model_dump(mode="json")
    return "" if asked == wanted.bars.prepare.model_dump(mode="json") else f"{layout.DATASET} was judged by other bars"


def _lacking(store: Store, path: str) -> str:
    manifest = manifests.read(store, path)
    if manifest is None:
        return f"{path} is missing"
    for folder in sorted({file.path.rpartition("/")[0] for file in manifest.files}):
        lost = manifests.missing_files(store, manifest, folder)
        if lost:
            return f"{lost[0]} is not as its manifest says"
    return ""
