"""Data sets of other runs that a run trains on (`dataset.from`): for a second student, or for a data set that grows.

Rows keep the split they had, as that is a pure function of the conversation; a topic that one of the runs only tested on is only
tested on here, too. So no row that a student was tested on ever turns into training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from medkd.errors import ConfigError
from medkd.records import RecordSchema
from medkd.stages.plan import load_plan
from medkd.stages.sources import Merged, Source, Union
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import Manifest


@dataclass(frozen=True)
class LentDataSet:
    """A finished data set under another run's prefix."""

    store: Store
    manifest: Manifest

    @property
    def hash(self) -> str:
        return str(self.manifest.counts["data_set_hash"])

    @property
    def origin(self) -> str:
        """What manifests name it by."""
        return f"{self.store.url}/{layout.DATASET_MANIFEST}"

    @property
    def num_rows(self) -> int:
        return sum(int(self.manifest.counts[split]) for split in layout.SPLITS)

    @property
    def held_out_topics(self) -> tuple[str, ...]:
        """Topics that its run only tested on; InputError where its statistics are not as they were written."""
        file = next(file for file in self.manifest.files if file.path.endswith("/statistics.json"))
        return tuple(json.loads(manifests.read_verified(self.store, file))["held_out_topics"])


def find_lent(stores: Sequence[Store]) -> list[LentDataSet]:
    """The data sets under these prefixes; ConfigError where one is not there whole, or stands twice."""
    found: list[LentDataSet] = []
    for store in stores:
        manifest = manifests.read(store, layout.DATASET_MANIFEST)
        if manifest is None:
            raise ConfigError(f"--dataset-from: {store.url} has no data set; wait until stage prepare of that run has ended")
        lost = manifests.missing_files(store, manifest, layout.DATASET)
        if lost:
            raise ConfigError(f"--dataset-from: {store.url}/{lost[0]} is not as its manifest says; restore it")
        one = LentDataSet(store, manifest)
        if one.hash in {other.hash for other in found}:
            raise ConfigError(f"--dataset-from: {store.url} holds the same data set as one before it; name each once")
        found.append(one)
    return found


def check_schemas(lent: Sequence[LentDataSet], schema: RecordSchema) -> None:
    """ConfigError where a lent data set holds other records than this run's. One without a plan does not say so."""
    for one in lent:
        if one.store.exists(layout.PLAN_MANIFEST) and (other := load_plan(one.store)[0].schema) != schema:
            raise ConfigError(
                f"--dataset-from: {one.store.url} holds records of schema {other.name}, version {other.version}; expected "
                f"{schema.name}, version {schema.version}, word for word as this run has it (--record-schema)"
            )


def all_rows(own: Source | None, lent: Sequence[LentDataSet]) -> Source:
    """Own rows and lent ones. Lent rows keep their ids where they are all there is, else their ids say whose they are."""
    united = Union([(one.store, one.manifest) for one in lent], keeps_ids=own is None and len(lent) == 1)
    return united if own is None else Merged([own, united]) if lent else own


def check_same(store: Store, data_set: Manifest, lent: Sequence[LentDataSet]) -> None:
    """ConfigError where a data set that stands was made from other runs than these."""
    there = {value for path, value in data_set.inputs.items() if path.endswith(f"/{layout.DATASET_MANIFEST}")}
    if there != {one.hash for one in lent}:
        raise ConfigError(
            f"{store.url}/{layout.DATASET}: was made from other data sets than --dataset-from names; choose another --prefix, or "
            "name the same runs"
        )
