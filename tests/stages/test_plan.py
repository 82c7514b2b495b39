"""The plan: what every sample will be, fixed once and the same on every machine."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd import config
from medkd.commands.flags import build_parser
from medkd.config import GenerationSettings, Prices, TeacherConfig
from medkd.errors import BudgetError, ConfigError, InputError
from medkd.samples import sample_id
from medkd.schema_documents import document_of
from medkd.stages import estimates, teacher_checks
from medkd.stages import plan as planning
from medkd.stages.plan import ConversationSource, Plan, parse_plan
from medkd.store import layout, manifests
from medkd.store.conversations import Block, Columns, SourceFile
from medkd.store.files import Store
from medkd.teacher import prompts, protocols
from medkd.teacher.prices import upper_bound_usd
from tests.schema_strategy import schemas

SHIPPED = Path(__file__).parents[2] / "configs" / "model_configs.json"
PRICED = Prices(input=1.0, output=4.0)
SETTINGS = GenerationSettings(
    conversation_topics=("asthma", "gout", "migraine"),
    patient_moods=("calm", "anxious"),
    conversation_length={"min_exchanges": 4, "max_exchanges": 6},  # type: ignore[arg-type]
)


def teacher(prices: Prices | None = None) -> TeacherConfig:
    return config.load(None).teacher("simulator").model_copy(update={"prices": prices or Prices()})


def make_plan(*, samples: int | None = 20, seed: int = 1, **changes: Any) -> Plan:
    made = planning.make_plan(
        SETTINGS, "simulator", teacher(), seed=seed, total_samples=samples, prompt_version=prompts.PROMPT_VERSION
    )
    return replace(made, **changes)


def publish(
    store: Store, plan: Plan, *, shards: int = 4, prices: Prices | None = None, budget: float | None = None
) -> planning.Layout:
    return planning.publish(store, plan, teacher(prices), num_shards=shards, budget_usd=budget)


def contents(store: Store) -> dict[str, bytes]:
    return {file.path: store.read(file.path) for file in store.list_files()}


_words = st.lists(st.text("abcdefgh ", min_size=1, max_size=8), min_size=1, max_size=6, unique=True).map(tuple)
_sources = st.builds(
    ConversationSource,
    files=st.lists(
        st.builds(
            SourceFile,
            path=st.text(),
            rows=st.integers(0, 50),
            sha256=st.text("0123456789abcdef", max_size=8),
            blocks=st.lists(
                st.builds(Block, rows=st.integers(1, 9), line=st.integers(1, 9), offset=st.integers(0, 9), sha256=st.text()),
                max_size=2,
            ).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    columns=st.builds(Columns, conversation=st.text(), id=st.none() | st.text(), record=st.none() | st.text()),
    contains_phi=st.booleans(),
)
_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
plans = st.builds(
    Plan,
    seed=st.integers(0, 2**63),
    total_samples=st.integers(1, 500),
    topics=_words,
    moods=_words,
    min_exchanges=st.integers(1, 5),
    max_exchanges=st.integers(5, 9),
    held_out_topics=st.just(()),
    record_schema=st.just("patient_record") | schemas().map(document_of),
    prompt_version=st.integers(1, 9),
    teacher=st.dictionaries(st.text(), _json, max_size=4),
    source=st.none() | _sources,
)


# --- samples ----------------------------------------------------------------------------------------------------------


@given(plans, st.data())
@settings(max_examples=25)
def test_a_sample_is_pure_in_seed_index_and_variation(plan: Plan, data: st.DataObject) -> None:
    index, variation = data.draw(st.integers(0, plan.total_samples - 1)), data.draw(st.integers(0, 3))
    spec = plan.spec(index, variation)
    other = replace(plan, total_samples=plan.total_samples + 7, prompt_version=99, teacher={}, source=None)
    assert other.spec(index, variation) == spec
    assert (spec.index, spec.variation, spec.sample_id) == (index, variation, sample_id(index))
    assert spec.topic in plan.topics
    assert spec.mood in plan.moods
    assert plan.min_exchanges <= spec.exchanges <= plan.max_exchanges
    assert 18 <= spec.age < 88
    assert spec.sex in ("female", "male")
    assert spec.style in planning.STYLES
    assert 0 <= spec.seed < 2**31


def test_another_process_makes_the_same_samples() -> None:
    plan = make_plan()
    code = f"from medkd.stages.plan import parse_plan; print(parse_plan({json.dumps(asdict(plan)).encode()!r}).spec(17, 2))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == str(plan.spec(17, 2))


@given(plans)
@settings(max_examples=25)
def test_each_round_visits_every_cell_once(plan: Plan) -> None:
    cells = [(plan.spec(index, 0).topic, plan.spec(index, 0).mood) for index in range(3 * plan.num_cells)]
    for start in range(0, len(cells), plan.num_cells):
        counts = Counter(cells[start : start + plan.num_cells])
        assert len(counts) == plan.num_cells
        assert set(counts.values()) == {1}


def test_variations_of_a_sample_keep_its_cell_and_change_the_rest() -> None:
    plan = make_plan()
    variations = [plan.spec(5, variation) for variation in range(planning.NUM_VARIATIONS)]
    assert len({(spec.topic, spec.mood) for spec in variations}) == 1
    assert len({spec.seed for spec in variations}) == planning.NUM_VARIATIONS


def test_another_seed_makes_other_samples() -> None:
    first, second = make_plan(seed=1), make_plan(seed=2)
    assert first.hash != second.hash
    assert [first.spec(index, 0).seed for index in range(5)] != [second.spec(index, 0).seed for index in range(5)]


@given(st.integers(1, 10_000), st.integers(1, 300))
def test_shards_cut_all_samples_into_contiguous_parts_of_nearly_equal_size(total: int, shards: int) -> None:
    plan = make_plan(samples=total)
    ranges = [plan.shard_range(shard, shards) for shard in range(shards)]
    assert [index for part in ranges for index in part] == list(range(total))
    sizes = {len(part) for part in ranges}
    assert max(sizes) - min(sizes) <= 1


# --- the file ---------------------------------------------------------------------------------------------------------


@given(plans)
@settings(max_examples=25)
def test_a_plan_comes_back_from_its_file_with_the_same_hash(plan: Plan) -> None:
    parsed = parse_plan(json.dumps(asdict(plan), indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert parsed == plan
    assert parsed.hash == plan.hash


@given(plans, st.data())
@settings(max_examples=25)
def test_every_part_of_a_plan_counts_for_its_hash(plan: Plan, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["seed", "total_samples", "min_exchanges", "prompt_version", "persona_version"]))
    assert replace(plan, **{name: getattr(plan, name) + 1}).hash != plan.hash
    assert replace(plan, topics=(*plan.topics, "one more topic")).hash != plan.hash
    assert replace(plan, teacher={**plan.teacher, "one more": 1}).hash != plan.hash


def test_what_a_run_costs_and_where_it_runs_is_not_in_the_plan() -> None:
    elsewhere = teacher(PRICED).model_copy(update={"base_url": "http://other", "api_key_env": "X", "call_deadline_seconds": 1})
    identity = planning.teacher_identity("simulator", elsewhere)
    assert identity == planning.teacher_identity("simulator", teacher())
    assert planning.teacher_identity("simulator", elsewhere.model_copy(update={"temperature": 0.1})) != identity


def test_a_plan_of_another_version_is_not_continued() -> None:
    for change in ({"format": 2}, {"persona_version": 2}):
        with pytest.raises(ConfigError, match="written by another version of medkd"):
            parse_plan(json.dumps({**asdict(make_plan()), **change}).encode())


def test_more_samples_than_conversations_are_an_input_error() -> None:
    source = ConversationSource(files=(SourceFile(path="a.csv", rows=5, sha256=""),), columns=Columns(), contains_phi=False)
    arguments = {"seed": 1, "prompt_version": 1, "source": source}
    assert planning.make_plan(SETTINGS, "simulator", teacher(), total_samples=None, **arguments).total_samples == 5
    with pytest.raises(InputError, match="--num-samples: got 6, but --conversations holds 5 rows"):
        planning.make_plan(SETTINGS, "simulator", teacher(), total_samples=6, **arguments)


# --- publishing -------------------------------------------------------------------------------------------------------


def test_publishing_the_same_plan_again_changes_nothing(store: Store) -> None:
    first = publish(store, make_plan())
    before = contents(store)
    assert set(before) == {layout.PLAN, layout.LAYOUT, layout.PLAN_MANIFEST}
    assert publish(store, make_plan()) == first
    assert contents(store) == before
    plan, cut = planning.load_plan(store)
    assert (plan, plan.hash, cut) == (make_plan(), make_plan().hash, first)


@pytest.mark.parametrize(
    ("other", "keys"),
    [
        ({"seed": 2}, "seed"),
        ({"samples": 21}, "total_samples"),
        ({"moods": ("calm",), "prompt_version": 99}, "moods, prompt_version"),
        ({"teacher": {"name": "groq"}}, "teacher"),
    ],
)
def test_another_plan_under_the_same_prefix_is_refused_naming_what_differs(
    store: Store, other: dict[str, Any], keys: str
) -> None:
    publish(store, make_plan())
    before = contents(store)
    with pytest.raises(ConfigError, match=rf"plan\.json: holds another plan; choose another --prefix, .* \(differs in {keys}\)"):
        publish(store, make_plan(**other))
    assert contents(store) == before


def test_another_number_of_shards_is_refused_with_the_one_that_goes_on(store: Store) -> None:
    publish(store, make_plan(), shards=4)
    with pytest.raises(ConfigError, match="cut into another number of shards; go on with --num-shards 4"):
        publish(store, make_plan(), shards=5)
    assert planning.load_plan(store)[1].num_shards == 4


@pytest.mark.parametrize("shards", [0, -1, 21])
def test_a_number_of_shards_that_cannot_be_is_refused(store: Store, shards: int) -> None:
    with pytest.raises(ConfigError, match=f"--num-shards: got {shards}, expected 1 to 20, the number of samples"):
        publish(store, make_plan(), shards=shards)
    assert contents(store) == {}


def test_of_two_plans_published_at_once_one_stands_and_the_other_is_refused(store: Store) -> None:
    ready = threading.Barrier(4)

    def work(seed: int) -> str:
        ready.wait()
        try:
            publish(store, make_plan(seed=seed))
        except ConfigError:
            return "refused"
        return "published"

    with ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(work, range(4)))
    assert Counter(outcomes) == {"published": 1, "refused": 3}
    assert planning.load_plan(store)[0].seed == outcomes.index("published")


def test_a_prefix_without_a_finished_plan_names_the_stage_to_run(store: Store) -> None:
    with pytest.raises(ConfigError, match="plan"):
        planning.load_plan(store)
    publish(store, make_plan())
    store.delete(layout.PLAN_MANIFEST)
    with pytest.raises(ConfigError, match="plan"):
        planning.load_plan(store)
    publish(store, make_plan())
    assert planning.load_plan(store)[0] == make_plan()


def test_a_plan_that_was_edited_is_not_followed(store: Store) -> None:
    publish(store, make_plan())
    store.replace(layout.PLAN, store.read(layout.PLAN).replace(b'"seed": 1', b'"seed": 2'))
    with pytest.raises(InputError, match=r"plan\.json: differs from its manifest"):
        planning.load_plan(store)
    store.replace(layout.PLAN, b"{")
    with pytest.raises(InputError, match=r"plan\.json: not JSON; restore it or choose another --prefix"):
        publish(store, make_plan())


def test_the_plan_manifest_carries_the_hashes_of_both_files(store: Store) -> None:
    publish(store, make_plan())
    manifest = manifests.require(store, layout.PLAN_MANIFEST, "plan")
    assert manifest.plan_hash == make_plan().hash
    assert [file.path for file in manifest.files] == [layout.PLAN, layout.LAYOUT]
    assert manifests.missing_files(store, manifest, "") == []


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_teacher_with_a_price_needs_a_budget(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"--budget-usd: missing; teacher 'simulator' has a price, .* estimated at \$"):
        publish(store, make_plan(), prices=PRICED)
    assert contents(store) == {}


def test_a_budget_below_the_estimate_or_one_chunk_is_refused_before_anything_is_written(store: Store) -> None:
    plan = make_plan(samples=5000)
    estimate = estimates.estimate_usd(plan, teacher(PRICED))
    chunk = 5 * estimates.dearest_call_usd(plan, teacher(PRICED))
    for budget in (estimate * 0.99, chunk * 0.5):
        with pytest.raises(BudgetError, match=r"--budget-usd: got .*, expected at least .* Nothing has been paid"):
            publish(store, plan, prices=PRICED, budget=budget)
    assert contents(store) == {}
    cut = publish(store, plan, prices=PRICED, budget=1.01 * max(estimate, chunk))
    assert cut.chunk_usd >= chunk * 4 / 5
    assert cut.estimate_usd == estimate


def test_a_raised_budget_keeps_the_size_of_the_chunks(store: Store) -> None:
    plan = make_plan()
    first = publish(store, plan, prices=PRICED, budget=100.0)
    assert publish(store, plan, prices=PRICED, budget=200.0) == first


def test_the_default_budget_is_enough_for_its_plan(store: Store) -> None:
    for samples in (1, 5000):
        plan = make_plan(samples=samples)
        budget = estimates.default_budget_usd(plan, teacher(PRICED))
        assert planning.make_layout(plan, teacher(PRICED), num_shards=1, budget_usd=budget).chunk_usd <= budget


def test_a_free_teacher_and_conversations_with_their_records_need_no_budget(store: Store) -> None:
    assert publish(store, make_plan()).chunk_usd == 0.0
    columns = Columns(record="gold")
    source = ConversationSource(files=(SourceFile(path="a.csv", rows=20, sha256=""),), columns=columns, contains_phi=True)
    plan = make_plan(source=source)
    assert not estimates.asks_teacher(plan)
    assert planning.make_layout(plan, teacher(PRICED), num_shards=1, budget_usd=None).chunk_usd == 0.0


@pytest.mark.parametrize(
    "name", [name for name in config.load(None).teacher_models if not config.load(None).teacher(name).prices.free]
)
def test_no_call_of_a_shipped_teacher_reserves_more_than_the_dearest_call(name: str) -> None:
    entry = config.load(None).teacher(name)
    plan = make_plan()
    conversation = "Doctor: " + "word " * int(entry.max_conversation_tokens * 0.8)
    request = prompts.extraction_request(conversation, plan.schema, entry, seed=1)
    request = prompts.enlarged(prompts.repaired(request, "x" * 4 * entry.max_record_tokens, "not JSON at line 1"))
    _, body = protocols.encode(entry, request)
    reserved = max(upper_bound_usd(entry.prices, len(body), request.reply_limit, hour) for hour in range(24))
    assert reserved <= estimates.dearest_call_usd(plan, entry)


# --- what is checked first --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        ({"prepare": {"share_stated": {"dose": 0.5}}}, r"bars\.prepare\.share_stated: got 'dose', known: current_diagnosis"),
        ({"evaluate": [{"score": "fields.dose.f1", "at_least": 0.5}]}, r"bars\.evaluate\.score: got 'fields\.dose\.f1'"),
    ],
)
def test_bars_that_no_record_can_reach_are_refused_before_anything_is_asked(tmp_path: Path, bars: Any, said: str) -> None:
    configured = tmp_path / "config.json"
    configured.write_text(json.dumps({**json.loads(SHIPPED.read_text()), "bars": bars}))
    line = ["plan", "--prefix", str(tmp_path / "run"), "--config", str(configured), "--skip-preflight"]
    args = build_parser().parse_args(line)
    with pytest.raises(ConfigError, match=said):
        args.verb(args, threading.Event())
    assert not (tmp_path / "run").exists()


def test_a_model_the_teacher_does_not_serve_is_named_with_those_it_serves() -> None:
    teacher_checks.check_model("simulator", teacher(), ["clinic-1", "other"])
    teacher_checks.check_model("simulator", teacher(), [])
    with pytest.raises(ConfigError, match=r"teacher_models\.simulator\.model: got 'clinic-1', this teacher serves: a, b"):
        teacher_checks.check_model("simulator", teacher(), ["b", "a"])


def test_restricted_terms_have_to_be_acknowledged() -> None:
    restricted = teacher().model_copy(update={"output_terms": "restricted"})
    with pytest.raises(ConfigError, match=r"teacher_models\.x\.terms_acknowledged: got false; .* set it to true"):
        teacher_checks.check_terms("x", restricted)
    teacher_checks.check_terms("x", restricted.model_copy(update={"terms_acknowledged": True}))
    teacher_checks.check_terms("x", teacher())
