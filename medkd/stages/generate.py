"""Stage generate: one shard of the plan, from the first paid call to Parquet and manifest.

`shard_work` brings the samples to their ends, `shard_calls` asks the teacher, `shard_ledger` keeps journal and money;
`sample_steps` says what a sample needs next. Here is the frame: what stands is taken as it is, and the tables come last.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from medkd.config import TeacherConfig, config_hash
from medkd.errors import ConfigError, FencedError, InputError
from medkd.stages import plan as planning
from medkd.stages import teacher_checks
from medkd.stages.shard_options import ShardOptions
from medkd.stages.shard_work import Judge, ShardWork
from medkd.store import journal, layout, manifests
from medkd.store.budget import unjournalled
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.teacher.client import TeacherClient
from medkd.telemetry import event


def generate(
    store: Store,
    teacher: TeacherConfig,
    client: TeacherClient,
    options: ShardOptions,
    *,
    stop: threading.Event,
    on_progress: Callable[[dict[str, Any]], None] = lambda progress: None,
    judge: Judge | None = None,
) -> Manifest:
    """Bring one shard to its end and return its manifest; at once where it has ended before. judge: the plan's other teacher.

    Raises StoppedError after `stop` was set, FencedError where another process took the shard over, BudgetError where the
    run's budget is spent, and the teacher's RefusedError, ConfigError or UnreachableError. In each case what was answered is
    durable first, and the same call later continues.
    """
    plan, cut = planning.load_plan(store)
    if not 0 <= options.shard < cut.num_shards:
        raise ConfigError(f"--shard-index: got {options.shard}, allowed: 0 to {cut.num_shards - 1}, the shards of this run")
    teacher_checks.check_phi(plan, teacher)
    if plan.judges and teacher.mode == "batch":
        raise ConfigError("generation_settings.judges: got a second extraction in mode batch, expected mode call")
    manifest_path = layout.shard_file(options.shard, "manifest.json")
    finished = manifests.read(store, manifest_path)
    if finished:
        journal.delete_segments(store, options.shard)
        return finished
    try:
        shard = ShardWork(store, plan, cut, teacher, client, options, stop, on_progress, judge)
        shard.work()
        manifest = _finish(store, plan, teacher, options.shard, shard)
    except (InputError, FencedError):
        # Another process may have finished the shard and dropped its segments while this one was at work.
        finished = manifests.read(store, manifest_path)
        if finished is None:
            raise
        manifest = finished
    journal.delete_segments(store, options.shard)
    return manifest


def _finish(store: Store, plan: planning.Plan, teacher: TeacherConfig, number: int, shard: ShardWork) -> Manifest:
    """Write the tables as a pure function of the journal, the manifest last."""
    tables = shard.tables
    files = tables.close()
    replay = journal.replay_shard(store, number, plan.hash, keep_replies=False)
    budget = shard.ledger.budget
    spent, possibly = tables.spent_usd, replay.possibly_usd + tables.possibly_usd
    # What writers before this one left was adopted at its claim. Here is what one took that has yet to notice that it is fenced:
    # not given back, since it does not meet the segments that are about to be deleted.
    left = sum(taken.usd for taken in unjournalled(store, number, replay.chunks)) if budget else 0.0
    counts = tables.counts()
    manifest = Manifest(
        stage="generate",
        shard=number,
        plan_hash=plan.hash,
        config_hash=config_hash(teacher),
        inputs={layout.PLAN: plan.hash},
        files=files,
        counts={**counts, "short_cells": tables.short_cells.table(plan.cells()), "groups": tables.groups.table()},
        money={"spent_usd": spent, "possibly_usd": possibly + left, "taken_usd": replay.money_usd + left},
    )
    manifests.write(store, layout.shard_file(number, "manifest.json"), manifest)
    if budget:
        budget.give_back(replay.money_usd - spent - possibly)
    shard.complete()
    event("shard complete", **{name: counts[name] for name in ("accepted", "rejected", "calls")}, spent_usd=round(spent, 6))
    return manifest


def shard_states(store: Store, num_shards: int) -> Iterator[dict[str, Any]]:
    """The progress file of every shard that has one."""
    for shard in range(num_shards):
        try:
            yield json.loads(store.read(layout.shard_file(shard, "progress.json")))
        except FileNotFoundError:
            continue
