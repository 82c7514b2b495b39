"""Planning and generating against the simulator, as tests of several folders need it."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from medkd import config
from medkd.config import GenerationSettings, Prices, TeacherConfig
from medkd.records import PATIENT_RECORD, RecordSchema
from medkd.simulator.server import Server, SimulatorOptions
from medkd.stages import control
from medkd.stages import plan as planning
from medkd.stages.generate import generate
from medkd.stages.plan import ConversationSource, Layout, Plan
from medkd.stages.shard_options import ShardOptions
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.teacher.client import TeacherClient
from medkd.teacher.prompts import prompt_version


def settings(**changes: Any) -> GenerationSettings:
    """Few topics and short conversations."""
    values = {
        "conversation_topics": ("asthma", "gout", "migraine"),
        "patient_moods": ("calm", "anxious"),
        "conversation_length": {"min_exchanges": 4, "max_exchanges": 5},
    }
    return GenerationSettings.model_validate({**values, **changes})


def simulated(server: Server, *, prices: Prices | None = None, max_concurrency: int = 8) -> TeacherConfig:
    """The configured simulator entry, at this server."""
    teacher = config.load(None).teacher("simulator")
    limits = teacher.limits.model_copy(update={"max_concurrency": max_concurrency})
    return teacher.model_copy(update={"base_url": f"{server.url}/v1", "prices": prices or Prices(), "limits": limits})


def start_simulator(**options: Any) -> Server:
    return Server(SimulatorOptions(port=0, **options))


def planned(
    store: Store,
    teacher: TeacherConfig,
    *,
    samples: int | None = 12,
    shards: int = 1,
    seed: int = 1,
    budget_usd: float | None = None,
    source: ConversationSource | None = None,
    schema: RecordSchema = PATIENT_RECORD,
    **settings_changes: Any,
) -> tuple[Plan, Layout]:
    """A published plan, its control included."""
    plan = planning.make_plan(
        settings(**settings_changes),
        "simulator",
        teacher,
        seed=seed,
        total_samples=samples,
        prompt_version=prompt_version(schema),
        source=source,
        schema=schema,
    )
    cut = planning.publish(store, plan, teacher, num_shards=shards, budget_usd=budget_usd)
    first = control.first_control(plan.total_samples, len(plan.shard_range(0, shards)), cut.chunk_usd > 0, teacher.min_gold_f1)
    control.create_control(store, first)
    return plan, cut


@dataclass
class Worker:
    """One process's view of a shard, in this process."""

    store: Store
    teacher: TeacherConfig
    budget_usd: float | None = None
    api_key: str | None = None
    progress_seconds: float = 0.2
    max_park_seconds: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, shard: int = 0, on_progress: Any = lambda progress: None) -> Manifest:
        client = TeacherClient(self.teacher, api_key=self.api_key, stop=self.stop)
        options = ShardOptions(
            shard=shard,
            writer=uuid.uuid4().hex,
            concurrency=self.teacher.limits.max_concurrency,
            budget_usd=self.budget_usd,
            progress_seconds=self.progress_seconds,
            max_park_seconds=self.max_park_seconds,
        )
        try:
            return generate(self.store, self.teacher, client, options, stop=self.stop, on_progress=on_progress)
        finally:
            client.close()
