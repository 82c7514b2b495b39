"""A run as it lies under a prefix, opened to be looked at: plan, shards, data set and students, each read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from medkd.errors import ConfigError, InputError
from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.samples import sample_index
from medkd.stages import standing
from medkd.stages.plan import Layout, Plan, load_plan
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.student.tokenizer import FORM_FILE, StudentForm


@dataclass(frozen=True)
class Run:
    """What lies under a prefix, read when it is asked for."""

    store: Store

    @cached_property
    def planned(self) -> tuple[Plan, Layout] | None:
        """None where a data set was made of rows from elsewhere."""
        return load_plan(self.store) if self.store.exists(layout.PLAN_MANIFEST) else None

    @cached_property
    def finished(self) -> dict[int, Manifest]:
        """The manifests of the shards that have ended."""
        return standing.shard_manifests(self.store, range(self.num_shards))

    @cached_property
    def data_set(self) -> Manifest | None:
        return manifests.read(self.store, layout.DATASET_MANIFEST)

    @cached_property
    def students(self) -> list[str]:
        return self.store.list_folders("students")

    @property
    def num_shards(self) -> int:
        return self.planned[1].num_shards if self.planned else 0

    @property
    def schema(self) -> RecordSchema:
        return self.planned[0].schema if self.planned else PATIENT_RECORD

    @property
    def holds_patient_data(self) -> bool:
        """Whether whoever planned the run said so."""
        return bool(self.planned and self.planned[0].source and self.planned[0].source.contains_phi)

    def indices(self, shard: int) -> range:
        assert self.planned
        return self.planned[0].shard_range(shard, self.num_shards)

    def shard_of(self, sample: str) -> int | None:
        """The shard that makes a sample; None of one that another run has made."""
        if not sample.isdecimal():
            return None
        return next((shard for shard in range(self.num_shards) if sample_index(sample) in self.indices(shard)), None)

    def schema_of(self, student: str) -> RecordSchema:
        """The record schema that a student answers in; the run's where its model's folder does not say."""
        path = f"{layout.student_folder(student)}/model/{FORM_FILE}"
        try:
            return StudentForm.parse(self.store.read(path)).fields
        except FileNotFoundError:
            return self.schema
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.store.url}/{path}: not a student's form ({type(error).__name__})") from error


def open_run(store: Store) -> Run:
    """The run under a prefix; ConfigError where nothing of one lies there."""
    run = Run(store)
    if run.planned is None and run.data_set is None:
        raise ConfigError(f"--prefix: {store.url} is no run; expected one whose stage plan has ended")
    return run
