"""Stage plan: fixes once what every sample of the run will be, and checks what can be checked before anything is paid.

`plan.json` is immutable; its hash names the run's content. Rates, prices, budget, URLs, keys, shards and students are not in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from medkd.config import GenerationSettings, ModelConfigs, TeacherConfig, config_hash
from medkd.errors import BudgetError, ConfigError, InputError
from medkd.records import PATIENT_RECORD, RECORD_SCHEMAS, RecordSchema
from medkd.samples import SampleSpec, canonical_json, sha256_hex
from medkd.schema_documents import document_of, schema_of
from medkd.stages.estimates import dearest_call_usd, estimate_usd
from medkd.store import budget, layout, manifests
from medkd.store.conversations import Block, Columns, SourceFile
from medkd.store.files import Store, check_exclusive_create
from medkd.telemetry import event

FORMAT = 1
PERSONA_VERSION = 1
NUM_VARIATIONS = 4

STYLES = ("brief", "rambling", "precise", "hesitant", "chatty", "worried about details")

_ANOTHER_PLAN = "holds another plan; choose another --prefix, or repeat the settings of the first start"
_ANOTHER_CUT = "was cut into another number of shards; go on with --num-shards {num_shards}"


@dataclass(frozen=True, kw_only=True)
class ConversationSource:
    """The team's own conversations as the plan pins them."""

    files: tuple[SourceFile, ...]
    columns: Columns
    contains_phi: bool
    """Whether they are patient data, which only teachers marked `phi_agreement` may see."""

    @property
    def num_rows(self) -> int:
        return sum(file.rows for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What each sample of the run will be."""

    seed: int
    total_samples: int
    topics: tuple[str, ...]
    moods: tuple[str, ...]
    min_exchanges: int
    max_exchanges: int
    held_out_topics: tuple[str, ...]
    record_schema: str | dict[str, Any]
    """Name of a shipped record schema, or the document of another one."""
    prompt_version: int
    teacher: dict[str, Any]
    """Name, protocol, model and sampling parameters: what a reply depends on."""
    ungrounded: Literal["reject", "flag"] = "reject"
    """What becomes of a record that says what its conversation does not: repaired or rejected, or accepted with a flag."""
    source: ConversationSource | None = None
    """None: conversations are generated."""
    judges: dict[str, Any] | None = None
    """Share of the samples that are extracted a second time, and the identity of another teacher that does it, else null."""
    persona_version: int = PERSONA_VERSION
    format: int = FORMAT

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the plan's canonical JSON."""
        return sha256_hex(canonical_json(self.as_json()))

    def as_json(self) -> dict[str, Any]:
        """What `plan.json` holds; a plan without judges reads as it did before there were any."""
        return {key: value for key, value in asdict(self).items() if key != "judges" or value is not None}

    def is_judged(self, index: int) -> bool:
        """Whether a sample is extracted a second time once it is accepted."""
        return self.judges is not None and _number(f"{self.seed}:{index}:judge") < float(self.judges["share"]) * 2**64

    @cached_property
    def schema(self) -> RecordSchema:
        """What a record of this run is; ConfigError where the plan holds none that this medkd can read."""
        return planned_schema(self.record_schema)

    @property
    def num_cells(self) -> int:
        return len(self.topics) * len(self.moods)

    @property
    def num_variations(self) -> int:
        """How often a rejected sample is tried anew; an imported conversation has no other form of itself."""
        return 1 if self.source else NUM_VARIATIONS

    def cell(self, index: int) -> tuple[str, str]:
        """Topic and mood of a generated sample. Cells are visited in rounds, each a fresh permutation of all cells."""
        round_number, place = divmod(index, self.num_cells)
        topic, mood = divmod(_permutation(self.seed, round_number, self.num_cells)[place], len(self.moods))
        return self.topics[topic], self.moods[mood]

    def cells(self) -> dict[tuple[str, str], int]:
        """How many samples are planned of each cell; empty for imported conversations, whose topics only their files know."""
        if self.source:
            return {}
        rounds, rest = divmod(self.total_samples, self.num_cells)
        counts = Counter({(topic, mood): rounds for topic in self.topics for mood in self.moods})
        counts.update(self.cell(rounds * self.num_cells + place) for place in range(rest))
        return {cell: count for cell, count in counts.items() if count}

    def spec(self, index: int, variation: int) -> SampleSpec:
        """What this variation of the sample will be."""
        return self._remembered_spec(index, variation)

    @cached_property
    def _remembered_spec(self) -> Callable[[int, int], SampleSpec]:
        """A sample's description is wanted again after each of its calls."""
        return lru_cache(maxsize=4096)(self._make_spec)

    def _make_spec(self, index: int, variation: int) -> SampleSpec:
        topic, mood = self.cell(index)

        def pick(what: str, num_choices: int) -> int:
            return _number(f"{self.seed}:{index}:{variation}:{what}") % num_choices

        return SampleSpec(
            index=index,
            variation=variation,
            topic=topic,
            mood=mood,
            exchanges=self.min_exchanges + pick("exchanges", self.max_exchanges - self.min_exchanges + 1),
            age=18 + pick("age", 70),
            sex=("female", "male")[pick("sex", 2)],
            style=STYLES[pick("style", len(STYLES))],
            seed=pick("seed", 2**31),
        )

    def shard_range(self, shard: int, num_shards: int) -> range:
        """The sample indices of one shard: contiguous, sizes differing by one at most. A run of no shards has no samples."""
        if num_shards == 0:
            return range(0)
        return range(shard * self.total_samples // num_shards, (shard + 1) * self.total_samples // num_shards)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a run's work is cut. Outside the plan: another cut gives the same samples, but not under the same prefix."""

    num_shards: int
    chunk_usd: float
    """Size of a budget chunk; 0 for a teacher without a price."""
    estimate_usd: float
    """What the whole run should cost."""
    format: int = FORMAT


def make_plan(
    settings: GenerationSettings,
    teacher_name: str,
    teacher: TeacherConfig,
    *,
    seed: int,
    total_samples: int | None,
    prompt_version: int,
    source: ConversationSource | None = None,
    judge: TeacherConfig | None = None,
    schema: RecordSchema = PATIENT_RECORD,
) -> Plan:
    """The plan of a run from its configuration; InputError where more samples are asked for than there are conversations.

    judge: the teacher that `settings.judges` names.
    """
    total = (source.num_rows if source else settings.num_samples) if total_samples is None else total_samples
    if source and total > source.num_rows:
        raise InputError(f"--num-samples: got {total}, but --conversations holds {source.num_rows} rows; ask for at most those")
    return Plan(
        seed=seed,
        total_samples=total,
        topics=settings.conversation_topics,
        moods=settings.patient_moods,
        min_exchanges=settings.conversation_length.min_exchanges,
        max_exchanges=settings.conversation_length.max_exchanges,
        held_out_topics=settings.held_out_topics,
        ungrounded=settings.ungrounded,
        record_schema=schema.name if RECORD_SCHEMAS.get(schema.name) == schema else document_of(schema),
        prompt_version=prompt_version,
        teacher=teacher_identity(teacher_name, teacher),
        source=source,
        judges=_judges(settings, judge) if settings.judges else None,
    )


def _judges(settings: GenerationSettings, judge: TeacherConfig | None) -> dict[str, Any] | None:
    assert settings.judges
    name = settings.judges.teacher
    return {"share": settings.judges.share, "teacher": teacher_identity(name, judge) if name and judge else None}


def teacher_identity(name: str, teacher: TeacherConfig) -> dict[str, Any]:
    """What a teacher's replies depend on, and so part of the plan."""
    return {
        "name": name,
        "protocol": teacher.protocol,
        "model": teacher.model,
        "structured_output": teacher.structured_output,
        "temperature": teacher.temperature,
        "extra_body": teacher.extra_body,
        "max_conversation_tokens": teacher.max_conversation_tokens,
        "max_record_tokens": teacher.max_record_tokens,
    }


def reading_teacher(identity: Mapping[str, Any]) -> TeacherConfig:
    """A teacher as far as a plan tells: enough to say what its replies come to, not to ask it."""
    known = {key: value for key, value in identity.items() if key != "name"}
    return TeacherConfig.model_validate({**known, "base_url": "http://not.asked.invalid", "auth": "none"})


def planned_schema(planned: Any) -> RecordSchema:
    """The record schema that a plan names or holds; ConfigError where it is none."""
    if isinstance(planned, str):
        if planned not in RECORD_SCHEMAS:
            raise ConfigError(f"{layout.PLAN}: record_schema: got {planned!r}, known: {', '.join(sorted(RECORD_SCHEMAS))}")
        return RECORD_SCHEMAS[planned]
    try:
        return schema_of(planned)
    except ValueError as error:
        raise ConfigError(f"{layout.PLAN}: {error}") from None


def publish(
    store: Store,
    plan: Plan,
    teacher: TeacherConfig,
    *,
    num_shards: int,
    budget_usd: float | None,
    judge: TeacherConfig | None = None,
) -> Layout:
    """Check store and budget, then write plan and layout once; the same call again changes nothing.

    ConfigError where the prefix holds another plan or another number of shards; BudgetError where the budget cannot
    pay the estimate.
    """
    cut = rehearse(store, plan, teacher, num_shards=num_shards, budget_usd=budget_usd, judge=judge)
    _write_once(store, layout.PLAN, plan.as_json(), _ANOTHER_PLAN)
    known = _write_once(store, layout.LAYOUT, asdict(cut), _ANOTHER_CUT, compare=("num_shards",))
    files = tuple(manifests.entry(path, store.read(path)) for path in (layout.PLAN, layout.LAYOUT))
    manifest = manifests.Manifest(
        stage="plan", plan_hash=plan.hash, config_hash=config_hash(teacher), files=files, counts={"samples": plan.total_samples}
    )
    manifests.write(store, layout.PLAN_MANIFEST, manifest)
    event("planned", plan=plan.hash[:12], samples=plan.total_samples, shards=num_shards, estimate_usd=round(cut.estimate_usd, 4))
    return Layout(**known)


def rehearse(
    store: Store,
    plan: Plan,
    teacher: TeacherConfig,
    *,
    num_shards: int,
    budget_usd: float | None,
    judge: TeacherConfig | None = None,
) -> Layout:
    """What `publish` would say of store, budget and what lies under the prefix, without leaving anything there."""
    cut = make_layout(plan, teacher, num_shards=num_shards, budget_usd=budget_usd, judge=judge)
    check_prefix(store, plan, num_shards=num_shards)
    return cut


def check_prefix(store: Store, plan: Plan, *, num_shards: int) -> None:
    """ConfigError where the store would let two writers create one file, or the prefix holds another plan or cut."""
    check_exclusive_create(store)
    if store.exists(layout.PLAN):
        _read_equal(store, layout.PLAN, plan.as_json(), _ANOTHER_PLAN)
    if store.exists(layout.LAYOUT):
        _read_equal(store, layout.LAYOUT, {"num_shards": num_shards}, _ANOTHER_CUT, compare=("num_shards",))


def load_plan(store: Store) -> tuple[Plan, Layout]:
    """The plan and layout under a prefix; ConfigError where stage plan has not finished or another medkd wrote them.

    InputError where they are not as they were written.
    """
    manifest = manifests.require(store, layout.PLAN_MANIFEST, "plan")
    found = {file.path: manifests.read_verified(store, file) for file in manifest.files}
    return parse_plan(found[layout.PLAN]), Layout(**json.loads(found[layout.LAYOUT]))


def parse_plan(data: bytes) -> Plan:
    """The plan in the bytes of a plan.json."""
    raw = json.loads(data)
    if raw.get("format") != FORMAT or raw.get("persona_version") != PERSONA_VERSION:
        raise ConfigError(f"{layout.PLAN}: written by another version of medkd; continue this run with that version")
    source = raw.pop("source")
    if source:
        raw["source"] = ConversationSource(
            files=tuple(_source_file(file) for file in source["files"]),
            columns=Columns(**source["columns"]),
            contains_phi=source["contains_phi"],
        )
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Plan(**fields)


def _source_file(raw: dict[str, Any]) -> SourceFile:
    return SourceFile(**{**raw, "blocks": tuple(Block(**block) for block in raw["blocks"])})


def make_layout(
    plan: Plan, teacher: TeacherConfig, *, num_shards: int, budget_usd: float | None, judge: TeacherConfig | None = None
) -> Layout:
    """Cut a plan into shards and its budget into chunks; a teacher with a price needs a budget that pays the estimate."""
    if not min(1, plan.total_samples) <= num_shards <= plan.total_samples:
        raise ConfigError(f"--num-shards: got {num_shards}, expected 1 to {plan.total_samples}, the number of samples")
    estimate = estimate_usd(plan, teacher, judge)
    if estimate == 0:
        return Layout(num_shards=num_shards, chunk_usd=0.0, estimate_usd=0.0)
    if budget_usd is None:
        raise ConfigError(
            f"--budget-usd: missing; teacher {plan.teacher['name']!r} has a price, this plan is estimated at ${estimate:.2f}. "
            "Say what the run may cost at most"
        )
    dearest = dearest_call_usd(plan, teacher, judge)
    chunk = budget.chunk_usd(budget_usd, num_shards, dearest)
    # Beside a chunk there is room for a preflight's call.
    least = max(estimate, chunk + dearest)
    if budget_usd < least:
        raise BudgetError(
            f"--budget-usd: got {budget_usd:g}, expected at least {math.ceil(least * 100) / 100:.2f} (the estimate of this plan, "
            "and one budget chunk with a first call); raise it or lower --num-samples. Nothing has been paid"
        )
    return Layout(num_shards=num_shards, chunk_usd=chunk, estimate_usd=estimate)


def check_students(configs: ModelConfigs, names: list[str]) -> None:
    """ConfigError where a student of a later stage is not configured."""
    for name in names:
        configs.student(name)


def _write_once(store: Store, path: str, value: dict[str, Any], otherwise: str, compare: tuple[str, ...] = ()) -> dict[str, Any]:
    """Create the file, or accept an equal one; ConfigError naming the keys in which it differs. Returns what stands there."""
    data = (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return value if store.create(path, data) else _read_equal(store, path, value, otherwise, compare)


def _read_equal(store: Store, path: str, value: dict[str, Any], otherwise: str, compare: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file's value; ConfigError naming the keys, of all or of those to compare, in which it differs from this one."""
    try:
        there: dict[str, Any] = json.loads(store.read(path))
    except ValueError as error:
        raise InputError(f"{store.url}/{path}: not JSON; restore it or choose another --prefix") from error
    wanted = json.loads(json.dumps(value))
    keys = [key for key in (compare or sorted(set(there) | set(wanted))) if there.get(key) != wanted.get(key)]
    if keys:
        raise ConfigError(f"{store.url}/{path}: {otherwise.format(**there)} (differs in {', '.join(keys)})")
    return there


@lru_cache(maxsize=64)
def _permutation(seed: int, round_number: int, size: int) -> tuple[int, ...]:
    return tuple(sorted(range(size), key=lambda cell: _number(f"{seed}:{round_number}:cell:{cell}")))


def _number(text: str) -> int:
    """A number that is uniform over 64 bits and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
