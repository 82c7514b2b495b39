"""The verbs before anything is bought: estimate, preflight, and plan, which begins with the latter."""

from __future__ import annotations

import argparse
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medkd.commands.settings import (
    api_key,
    check_hub_token,
    conversation_source,
    generation_settings,
    judge_of,
    lending_stores,
    load_configs,
    num_shards,
    open_prefix,
    process_name,
    record_schema,
    storage_options,
    teacher_client,
    teacher_of,
)
from medkd.errors import ConfigError
from medkd.records import PATIENT_RECORD

if TYPE_CHECKING:
    from medkd.config import ModelConfigs, TeacherConfig
    from medkd.stages.plan import Plan
    from medkd.store.files import Store
    from medkd.student.hub import HubModel
    from medkd.teacher.client import TeacherClient


def estimate(args: argparse.Namespace, stop: threading.Event) -> int:
    """What a plan will take; asks nobody and writes nothing."""
    from medkd.stages import estimates

    teacher, plan, judge = planned(args)
    found = estimates.estimate(
        plan,
        teacher,
        num_shards=num_shards(args, plan),
        parallel=args.parallel,
        seconds_per_call=args.seconds_per_call,
        judge=judge,
        measured=_measured(args),
    )
    print(estimates.as_json(found) if args.json else "\n".join(estimates.shown(found)))
    return 0


def _measured(args: argparse.Namespace) -> Any:
    """What the run of `--from` took; ConfigError where there is none."""
    if not args.measured_from:
        return None
    from medkd.stages.measured import measure
    from medkd.store import layout
    from medkd.store.files import open_store

    store = open_store(args.measured_from, storage_options(args))
    if not store.exists(layout.PLAN_MANIFEST):
        raise ConfigError(f"--from: {store.url} is no run; expected the prefix of one that has generated samples")
    return measure(store)


def preflight(args: argparse.Namespace, stop: threading.Event) -> int:
    """Every check, a line each; nothing stays under the prefix but the booking of the call it paid."""
    _check_all(args, stop)
    return 0


def plan(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import control, ownership
    from medkd.stages import plan as planning
    from medkd.stages.lent import check_schemas, find_lent
    from medkd.store import layout

    if not args.skip_preflight:
        # A plan that stands was checked before it was written: a retry pays no further call.
        _check_all(args, stop, first_call=not open_prefix(args, stop).exists(layout.PLAN_MANIFEST))
    teacher, plan, judge = planned(args)
    store = open_prefix(args, stop)
    ownership.take(store, args.owner or process_name(), take_over=args.take_over)
    check_schemas(find_lent(lending_stores(args, stop)), plan.schema)
    shards = num_shards(args, plan)
    planning.rehearse(store, plan, teacher, num_shards=shards, budget_usd=args.budget_usd, judge=judge)
    _copy_weights(args, store, stop)
    cut = planning.publish(store, plan, teacher, num_shards=shards, budget_usd=args.budget_usd, judge=judge)
    shard_zero = len(plan.shard_range(0, cut.num_shards))
    first = control.first_control(plan.total_samples, shard_zero, cut.chunk_usd > 0, teacher.min_gold_f1)
    control.create_control(store, first)
    money = f", estimated at ${cut.estimate_usd:.2f}" if cut.estimate_usd else ""
    print(f"planned {plan.total_samples:,} samples in {cut.num_shards} shards{money}: plan {plan.hash[:12]} under {store.url}")
    return 0


def planned(args: argparse.Namespace) -> tuple[TeacherConfig, Plan, TeacherConfig | None]:
    """Teacher, plan and judge of the flags, checked as far as that goes without store and network."""
    from medkd.stages import plan as planning
    from medkd.stages import teacher_checks

    configs = load_configs(args)
    teacher = teacher_of(configs, args)
    teacher_checks.check_terms(args.teacher, teacher)
    if hasattr(args, "student"):
        planning.check_students(configs, [args.student])
    plan, judge = _plan_of(args, configs, teacher)
    teacher_checks.check_phi(plan, teacher)
    if judge:
        check_judge(plan, judge)
    return teacher, plan, judge


def check_judge(plan: Plan, judge: TeacherConfig) -> None:
    """ConfigError where another teacher may not extract the plan's samples again."""
    from medkd.stages import teacher_checks

    assert plan.judges
    name = plan.judges["teacher"]["name"]
    teacher_checks.check_terms(name, judge)
    teacher_checks.check_phi(plan, judge, name)


def wanted_weights(args: argparse.Namespace, store: Store, stop: threading.Event) -> HubModel | None:
    """The student's model on the hub; None where it does not come from there, or lies in the run's store already."""
    from medkd.student.hub import copied_weights, find_on_hub, is_hub_model

    student = load_configs(args).student(args.student)
    if not is_hub_model(student) or copied_weights(store, student):
        return None
    check_hub_token()
    return find_on_hub(student, stop)


def _plan_of(args: argparse.Namespace, configs: ModelConfigs, teacher: TeacherConfig) -> tuple[Plan, TeacherConfig | None]:
    from medkd.quality.bars import check_names
    from medkd.stages import plan as planning
    from medkd.teacher import prompts

    settings = generation_settings(configs, args)
    judge = judge_of(configs, settings, args)
    schema = record_schema(args)
    check_names(configs.bars, schema)
    plan = planning.make_plan(
        settings,
        args.teacher,
        teacher,
        seed=args.seed,
        total_samples=0 if args.dataset_from and not args.conversations and args.num_samples is None else args.num_samples,
        prompt_version=prompts.prompt_version(schema),
        source=conversation_source(args, {"s3": options} if (options := storage_options(args)) else {}),
        judge=judge,
        schema=schema,
    )
    return plan, judge


def _copy_weights(args: argparse.Namespace, store: Store, stop: threading.Event) -> None:
    """Bring the student's weights from the hub into the store, once; later stages take them from there."""
    from medkd.student.hub import copy_weights

    found = wanted_weights(args, store, stop)
    if found:
        with tempfile.TemporaryDirectory(prefix="medkd-weights-") as scratch:
            copy_weights(store, load_configs(args).student(args.student), found, Path(scratch), stop)


@dataclass
class _Checks:
    """The checks of a run, each made with what those before it found."""

    args: argparse.Namespace
    stop: threading.Event

    def configuration(self) -> str:
        self.configs = load_configs(self.args)
        self.teacher = teacher_of(self.configs, self.args)
        return f"valid; teacher {self.args.teacher} ({self.teacher.model})"

    def terms(self) -> str:
        from medkd.stages import teacher_checks

        teacher_checks.check_terms(self.args.teacher, self.teacher)
        return f"training on this teacher's output: {'acknowledged' if self.teacher.terms_acknowledged else 'open'}"

    def student(self) -> str:
        student = self.configs.student(self.args.student)
        return f"{self.args.student}: {student.model_name}, {student.num_epochs} epochs, ZeRO {student.zero_stage}"

    def plan(self) -> str:
        self.planned, self.judge = _plan_of(self.args, self.configs, self.teacher)
        judges = self.planned.judges
        again = f"; {100 * judges['share']:g}% of them extracted a second time" if judges else ""
        schema = self.planned.schema
        record = "" if schema == PATIENT_RECORD else f"; record schema {schema.name}, version {schema.version}"
        return f"{self.planned.total_samples:,} samples in {num_shards(self.args, self.planned)} shards{again}{record}"

    def patient_data(self) -> str:
        from medkd.stages import teacher_checks

        teacher_checks.check_phi(self.planned, self.teacher)
        self._check_judge()
        source = self.planned.source
        return "none" if source is None or not source.contains_phi else "covered by an agreement with the teacher's provider"

    def _check_judge(self) -> None:
        """Of another teacher that extracts samples again: its terms, its agreement for patient data, its key."""
        if self.judge and self.planned.judges:
            check_judge(self.planned, self.judge)
            api_key(self.planned.judges["teacher"]["name"], self.judge)

    def store(self) -> str:
        from medkd.store.files import check_exclusive_create

        self.prefix = open_prefix(self.args, self.stop)
        check_exclusive_create(self.prefix)
        return f"{self.prefix.url} takes files, refuses a second create and deletes"

    def free_prefix(self) -> str:
        from medkd.stages import ownership
        from medkd.stages import plan as planning

        planning.check_prefix(self.prefix, self.planned, num_shards=num_shards(self.args, self.planned))
        if hasattr(self.args, "owner"):
            # Stage plan is about to take it; a paid call would be a waste where it may not.
            ownership.check_may_take(self.prefix, self.args.owner or process_name(), take_over=self.args.take_over)
        return "holds this run or none"

    def budget(self) -> str:
        from medkd.stages import estimates
        from medkd.stages import plan as planning

        shards = num_shards(self.args, self.planned)
        cut = planning.make_layout(
            self.planned, self.teacher, num_shards=shards, budget_usd=self.args.budget_usd, judge=self.judge
        )
        if not cut.estimate_usd:
            return "needs none: no call costs anything"
        found = estimates.estimate(
            self.planned,
            self.teacher,
            num_shards=shards,
            parallel=self.args.parallel,
            judge=self.judge,
        )
        return f"${self.args.budget_usd:,.2f} for {found.calls:,} calls, estimated at ${cut.estimate_usd:,.2f}"

    def key(self) -> str:
        self.client: TeacherClient = teacher_client(self.args, self.teacher, self.stop)
        return "none needed" if self.teacher.auth == "none" else f"found as {self.teacher.api_key_env}"

    def model(self) -> str:
        from medkd.stages import teacher_checks

        models = self.client.models()
        teacher_checks.check_model(self.args.teacher, self.teacher, models)
        listed = "is listed" if models else "may be served; no list is offered"
        return f"{self.teacher.base_url} knows the key; {self.teacher.model} {listed}"

    def first_call(self) -> str:
        from medkd.stages.bookings import Booking
        from medkd.stages.preflight import first_call

        booking = Booking(self.prefix, self.args.teacher, uuid.uuid4().hex[:8], self.args.budget_usd)
        return first_call(self.client, self.planned, self.teacher, booking)

    def lent(self) -> str:
        from medkd.stages.lent import check_schemas, find_lent

        found = find_lent(lending_stores(self.args, self.stop))
        check_schemas(found, self.planned.schema)
        return (
            ", ".join(f"{one.hash[:12]} of {one.store.url}, {one.num_rows:,} rows" for one in found) or "none lent by other runs"
        )

    def weights(self) -> str:
        found = wanted_weights(self.args, self.prefix, self.stop)
        if found is None:
            return "none to fetch from the hub"
        size = sum(file.bytes for file in found.files.values())
        return f"the hub gives {found.name} at {found.commit[:12]}, {len(found.files)} files, {size / 1e9:.2f} GB"

    def memory(self) -> str:
        if self.args.gpu_memory_gib is None:
            return "not checked; --gpu-memory-gib says how much a GPU that trains has"
        from medkd.student import memory

        student, world_size = self.configs.student(self.args.student), self.args.world_size
        with tempfile.TemporaryDirectory(prefix="medkd-sizes-") as scratch:
            sizes = memory.sizes_of(self.prefix, student, Path(scratch))
        capacity = int(self.args.gpu_memory_gib * memory.GIB)
        bf16 = student.precision != "fp32"
        found = memory.check_fits(self.args.student, sizes, student, capacity, world_size=world_size, bf16=bf16)
        return (
            f"{self.args.student}, {sizes.parameters:,} parameters, takes about {found.total / memory.GIB:.1f} of "
            f"{self.args.gpu_memory_gib:g} GiB on each of {world_size} GPUs with ZeRO {found.zero_stage}"
        )


def _check_all(args: argparse.Namespace, stop: threading.Event, *, first_call: bool = True) -> None:
    """Make every check and print a line for each; PreflightError where one failed."""
    from medkd.stages import estimates
    from medkd.stages.preflight import Findings

    checks = _Checks(args, stop)
    findings = Findings(lambda line: print(line, flush=True))
    findings.check("configuration", checks.configuration)
    findings.check("terms", checks.terms, needs=("configuration",))
    findings.check("student", checks.student, needs=("configuration",))
    findings.check("plan", checks.plan, needs=("configuration",))
    findings.check("patient data", checks.patient_data, needs=("plan",))
    findings.check("store", checks.store)
    findings.check("prefix", checks.free_prefix, needs=("store", "plan"))
    findings.check("budget", checks.budget, needs=("plan",))
    findings.check("data sets", checks.lent, needs=("plan",))
    findings.check("weights", checks.weights, needs=("student", "store"))
    findings.check("memory", checks.memory, needs=("student", "weights"))
    if getattr(checks, "planned", None) is None or estimates.asks_teacher(checks.planned):
        findings.check("key", checks.key, needs=("configuration",))
        findings.check("model", checks.model, needs=("key",))
        if first_call:
            # Last, and only when nothing else is wrong that would make a paid call a waste.
            everything = ("terms", "student", "patient data", "prefix", "budget", "data sets", "weights", "memory", "model")
            findings.check("first call", checks.first_call, needs=everything)
    findings.end()
