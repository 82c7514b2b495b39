"""Money by run, topic, teacher and day, added up from the ledgers under a prefix: what `medkd costs` prints.

A shard's ledger is its calls.parquet once it has finished and its journal before that; what a preflight bought is booked
beside them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medkd.errors import ConfigError
from medkd.samples import sample_index
from medkd.stages import standing
from medkd.stages.plan import Plan, load_plan
from medkd.stages.sample_steps import JUDGE
from medkd.store import journal, layout, tables
from medkd.store.budget import bookings
from medkd.store.files import Store
from medkd.store.manifests import Manifest

GROUPS = ("run", "teacher", "topic", "day")
_SUMS = ("calls", "prompt_tokens", "completion_tokens", "spent_usd", "possibly_usd")
_CALL_COLUMNS = ("sample_id", "step", "at", "attempts", "prompt_tokens", "completion_tokens", "cost_usd", "possibly_usd")
NO_SAMPLE = "(no sample)"
"""Where money belongs to no sample: preflights, and what processes that were killed may have spent."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Money that belongs together. possibly_usd: reserved for calls whose outcome or usage nobody knows."""

    run: str
    teacher: str
    topic: str
    day: str
    """UTC, of the answer."""
    calls: int
    prompt_tokens: int
    completion_tokens: int
    spent_usd: float
    possibly_usd: float


def find_runs(store: Store) -> dict[str, Store]:
    """By name the run at the prefix or, where it is a folder of runs, those directly below it; ConfigError where none is."""
    if store.exists(layout.PLAN):
        return {store.url.rstrip("/").rsplit("/", 1)[-1]: store}
    below = {name: store.sub(name) for name in store.list_folders()}
    runs = {name: run for name, run in below.items() if run.exists(layout.PLAN)}
    if not runs:
        raise ConfigError(f"--prefix: {store.url} is no run and holds none; expected a run's prefix, or a folder of such")
    return runs


def costs_of(name: str, store: Store) -> Iterator[Cost]:
    """What the run's ledgers say, a value for each teacher, topic and day of each shard."""
    plan, cut = load_plan(store)
    teacher = str(plan.teacher["name"])
    judge = str(((plan.judges or {}).get("teacher") or plan.teacher)["name"])
    finished = standing.shard_manifests(store, range(cut.num_shards))
    for shard in range(cut.num_shards):
        manifest = finished.get(shard)
        calls, possibly, topics = _finished(store, plan, manifest) if manifest else _open(store, plan, shard)
        sums: dict[tuple[str, str, str], Counter[str]] = {}
        for call in calls:
            topic, day = topics.get(call["sample_id"], "imported"), call["at"][:10] or NO_SAMPLE
            asked = judge if call["step"] == JUDGE else teacher
            sums.setdefault((asked, topic, day), Counter()).update(_sums_of(call))
        for (asked, topic, day), found in sums.items():
            yield _cost(name, asked, topic, day, found)
        # The rest of the manifest's figure: what was in flight when a process was killed.
        unknown = possibly - sum(call["possibly_usd"] for call in calls)
        if unknown > 1e-9:
            yield _cost(name, teacher, NO_SAMPLE, NO_SAMPLE, Counter({"possibly_usd": unknown}))
    for booked in bookings(store):
        found = Counter({"calls": 1, **{key: booked[key] for key in _SUMS if key != "calls"}})
        yield _cost(name, booked["teacher"], NO_SAMPLE, booked["at"][:10], found)


def by_group(costs: list[Cost]) -> dict[str, dict[str, dict[str, Any]]]:
    """The costs summed for each run, teacher, topic and day; `total` over all."""
    sums: dict[str, dict[str, Counter[str]]] = {group: {} for group in GROUPS}
    for cost in costs:
        for group in GROUPS:
            found = sums[group].setdefault(getattr(cost, group), Counter())
            found.update({key: getattr(cost, key) for key in _SUMS})
    shown = {group: {name: _rounded(found) for name, found in sorted(sums[group].items())} for group in GROUPS}
    total: Counter[str] = Counter()
    for found in sums["run"].values():
        total.update(found)
    return {**shown, "total": {"all": _rounded(total)}}


def _finished(store: Store, plan: Plan, manifest: Manifest) -> tuple[list[dict[str, Any]], float, dict[str, str]]:
    """Calls, what was possibly spent, and each sample's topic, of a shard that has ended."""
    named = {file.path.rsplit("/", 1)[-1]: file for file in manifest.files}
    calls = tables.read(store, [named["calls.parquet"]], _CALL_COLUMNS)
    if plan.source:
        rows = [named["samples.parquet"], named["rejected.parquet"]]
        topics = {row["sample_id"]: row["topic"] for row in tables.read(store, rows, ("sample_id", "topic"))}
    else:
        topics = _planned_topics(plan, calls)
    return calls, manifest.money["possibly_usd"], topics


def _open(store: Store, plan: Plan, shard: int) -> tuple[list[dict[str, Any]], float, dict[str, str]]:
    """The same of a shard that has not; imported conversations have no topic before it ends.

    What is in flight, or may have been sent since the last segment, counts as possibly spent: its process may be dead.
    """
    replay = journal.replay_shard(store, shard, plan.hash)
    calls = list(replay.done.values())
    possibly = replay.possibly_usd + replay.unanswered_usd + sum(call["possibly_usd"] for call in calls)
    return calls, possibly, {} if plan.source else _planned_topics(plan, calls)


def _planned_topics(plan: Plan, calls: list[dict[str, Any]]) -> dict[str, str]:
    return {call["sample_id"]: plan.cell(sample_index(call["sample_id"]))[0] for call in calls}


def _sums_of(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "calls": 1,
        "prompt_tokens": call["prompt_tokens"],
        "completion_tokens": call["completion_tokens"],
        "spent_usd": call["cost_usd"],
        "possibly_usd": call["possibly_usd"],
    }


def _cost(run: str, teacher: str, topic: str, day: str, found: Counter[str]) -> Cost:
    return Cost(run=run, teacher=teacher, topic=topic, day=day, **{key: found[key] for key in _SUMS})


def _rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(found[key], 8) if key.endswith("_usd") else found[key] for key in _SUMS}


def shown(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """The sums as tables of text, the dearest first."""
    width = max((len(name) for group in groups.values() for name in group), default=0)
    head = f"{'calls':>11} {'tokens in':>15} {'tokens out':>14} {'spent':>13} {'possibly more':>14}"
    for group in ("total", *GROUPS):
        found = sorted(groups[group].items(), key=lambda item: (-item[1]["spent_usd"], item[0]))
        if group == "total":
            yield f"{'':<{width}} {head}"
        elif len(found) == 1:
            yield f"{group}: {found[0][0]}"
            continue
        else:
            yield f"by {group}"
        for name, one in found:
            yield (
                f"{name:<{width}} {one['calls']:>11,} {one['prompt_tokens']:>15,} {one['completion_tokens']:>14,} "
                f"{'$' + format(one['spent_usd'], ',.4f'):>13} {'$' + format(one['possibly_usd'], ',.4f'):>14}"
            )


def as_json(groups: Mapping[str, Any]) -> str:
    return json.dumps({"format": 1, **groups}, indent=1, ensure_ascii=False)
