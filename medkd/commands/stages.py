"""The verbs that are stages, and `run`, which is all of them: call the stage, print one useful line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medkd.commands.plans import planned
from medkd.commands.scoring import evaluate_run
from medkd.commands.settings import (
    lending_stores,
    load_configs,
    open_prefix,
    plan_flags,
    planned_judge,
    planned_teacher,
    process_name,
    record_schema,
    repeat_flags,
    shard_options,
    student_of,
    teacher_client,
)
from medkd.errors import UsageError


def run(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd import local

    configs = load_configs(args)
    configs.teacher(args.teacher)
    configs.student(args.student)
    if args.num_shards is None:
        args.num_shards = 4
    store = open_prefix(args, stop)
    return local.run(
        store,
        configs,
        local.RunOptions(
            student=args.student,
            num_shards=args.num_shards,
            parallel=min(args.parallel, args.num_shards),
            start_from=args.start_from,
            owner=process_name(),
            shared_flags=repeat_flags(args, "config", "prefix", "storage_options", "log_level"),
            plan_flags=plan_flags(args),
            teacher_flags=repeat_flags(args, "teacher_url", "budget_usd", "ca_bundle"),
            prepare_flags=repeat_flags(args, "dataset_from"),
            gold_flags=repeat_flags(args, "gold", "gold_source"),
            ranks=args.ranks,
        ),
        stop,
    )


def generate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.generate import generate

    if args.output_path:
        return _generate_file(args, stop)
    configs = load_configs(args)
    store = open_prefix(args, stop)
    teacher_name, teacher = planned_teacher(store, configs, args)
    client = teacher_client(args, teacher, stop)
    judge = planned_judge(store, configs, args, stop)
    manifest = generate(store, teacher, client, shard_options(args, teacher), stop=stop, judge=judge)
    counts = manifest.counts
    print(
        f"shard {args.shard_index}: {counts['accepted']:,} accepted, {counts['rejected']:,} rejected, {counts['short']:,} short; "
        f"{counts['calls']:,} calls to {teacher_name}, ${manifest.money['spent_usd']:.4f}"
    )
    return 0


def _generate_file(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--output_path`: plan, generate and export in one go, the run's prefix beside the file."""
    from medkd.stages import estimates, jsonl, teacher_checks
    from medkd.stages import plan as planning
    from medkd.stages.generate import generate

    teacher, plan, judge = planned(args)
    args.prefix = args.prefix or f"{args.output_path}.run"
    store = open_prefix(args, stop)
    if args.budget_usd is None and not teacher.prices.free:
        args.budget_usd = estimates.default_budget_usd(plan, teacher, judge)
        print(f"no --budget-usd: this run stops at ${args.budget_usd:.2f}, three times its estimate", file=sys.stderr)
    client = teacher_client(args, teacher, stop)
    teacher_checks.check_model(args.teacher, teacher, client.models())
    planning.publish(store, plan, teacher, num_shards=1, budget_usd=args.budget_usd, judge=judge)
    judging = planned_judge(store, load_configs(args), args, stop)
    generate(store, teacher, client, shard_options(args, teacher), stop=stop, on_progress=_print_progress, judge=judging)
    count = jsonl.write(jsonl.accepted_rows(store), Path(args.output_path))
    print(f"{args.output_path}: {count:,} rows")
    if args.validate:
        _, bad = jsonl.read(Path(args.output_path), plan.schema)
        _print_bad_rows(args.output_path, bad)
        print(f"{args.output_path}: {count - len(bad):,} rows valid, {len(bad):,} not")
    return 0


def prepare(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.lent import find_lent
    from medkd.stages.prepare import prepare

    configs = load_configs(args)
    lent = find_lent(lending_stores(args, stop))
    manifest = prepare(
        open_prefix(args, stop),
        args.student,
        configs.student(args.student),
        lent,
        configs.bars.prepare,
        configs.generation_settings.require_agreement,
        take_review=args.review,
    )
    counts = manifest.counts
    print(
        f"data set {counts['data_set_hash'][:12]}: {counts['train']:,} train, {counts['validation']:,} validation, "
        f"{counts['test']:,} test; {counts['duplicates']:,} duplicates left out"
    )
    return 0


def train(args: argparse.Namespace, stop: threading.Event) -> int:
    if args.dry_run:
        return _train_dry_run(args, stop)
    if args.train_data:
        return _train_file(args, stop)
    if "RANK" in os.environ:
        return _train_rank(args, stop)
    load_configs(args).student(args.student)
    if args.num_epochs:
        raise UsageError(
            "--num-epochs: goes with --train_data; for a run set student_models.<name>.num_epochs, which its tokens carry"
        )
    return _launch(args, stop)


def _train_dry_run(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--dry-run`: DeepSpeed's configuration and the memory of each GPU; ConfigError where the student does not fit."""
    from medkd.student import memory
    from medkd.student.deepspeed_config import deepspeed_config
    from medkd.student.launch import gpu_bytes, num_gpus

    student = student_of(args)
    world_size = args.world_size or args.ranks or max(1, num_gpus())
    bf16 = student.precision != "fp32"
    print(json.dumps(deepspeed_config(student, world_size=world_size, device="cuda", bf16=bf16), indent=1))
    capacity = int(args.gpu_memory_gib * memory.GIB) if args.gpu_memory_gib else gpu_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        prefix = args.prefix or scratch
        args.prefix = prefix
        sizes = memory.sizes_of(open_prefix(args, stop), student, Path(scratch))
    found = memory.estimates(sizes, student, world_size=world_size, bf16=bf16)
    print(f"\n{args.student}: {sizes.parameters:,} parameters; GiB on each of {world_size} GPUs, an estimate:")
    print(memory.table(found, capacity))
    if capacity is None:
        print("no GPU here; pass --gpu-memory-gib to be told what fits")
        return 0
    lowest = memory.recommended(found, capacity)
    if lowest:
        print(f"recommended: zero_stage {lowest.zero_stage}, the lowest that fits {capacity / memory.GIB:.1f} GiB")
    sys.stdout.flush()
    memory.check_fits(args.student, sizes, student, capacity, world_size=world_size, bf16=bf16)
    return 0


def _train_file(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--train_data`: prepare, train and perhaps evaluate on a JSON lines file; the model lands in `--output_dir`."""
    from medkd.records import PATIENT_RECORD
    from medkd.samples import canonical_json, sha256_hex
    from medkd.schema_documents import document_of
    from medkd.stages import jsonl
    from medkd.stages.prepare import TRAINED_ON, stream_splits, write_data_set, write_tokens
    from medkd.stages.sources import RowsInMemory
    from medkd.store import layout, manifests

    if not args.output_dir:
        raise UsageError("--output_dir: missing; say where the model goes, for example --output_dir models/t5")
    student = student_of(args)
    schema = record_schema(args)
    rows, bad = jsonl.read(Path(args.train_data), schema)
    _print_bad_rows(args.train_data, bad)
    data_hash = sha256_hex(Path(args.train_data).read_bytes())
    if schema != PATIENT_RECORD:
        data_hash = sha256_hex(data_hash + canonical_json(document_of(schema)))
    args.prefix = f"{args.output_dir}.run"
    store = open_prefix(args, stop)
    manifest = manifests.read(store, layout.DATASET_MANIFEST)
    if manifest is None or manifest.plan_hash != data_hash:
        inputs = {str(args.train_data): data_hash}
        manifest = write_data_set(store, data_hash, schema, RowsInMemory(rows), (), inputs, {"rejected": len(bad)})
    write_tokens(store, args.student, student, stream_splits(store, manifest, TRAINED_ON), schema, manifest)
    code = _launch(args, stop)
    if code:
        return code
    folder = f"{layout.student_folder(args.student)}/model"
    store.download(folder, Path(args.output_dir))
    print(f"model: {args.output_dir}")
    if not args.evaluate:
        return 0
    try:
        return evaluate_run(args, stop)
    finally:
        # Card and verdict are written by now, and belong to the model also where it is below a bar.
        store.download(folder, Path(args.output_dir))


def _launch(args: argparse.Namespace, stop: threading.Event) -> int:
    """Start the ranks on this machine or, told by PET_* variables, this machine's part of a gang."""
    from medkd.student.launch import launch_training

    flags = repeat_flags(
        args, "config", "prefix", "storage_options", "log", "log_level", "student", "num_epochs", "grace_seconds"
    )
    return launch_training(
        ["train", *flags], ranks=args.ranks, environment=dict(os.environ), stop=stop, grace_seconds=args.grace_seconds
    )


def _train_rank(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.train import train
    from medkd.student.launch import ranks_of, report_exit

    ranks = ranks_of(os.environ)
    with report_exit(ranks):
        store = open_prefix(args, stop)
        student = student_of(args)
        train(store, student_name=args.student, student=student, ranks=ranks, stop=stop, grace_seconds=args.grace_seconds)
    return 0


def _print_progress(progress: dict[str, Any]) -> None:
    print(
        f"{progress['accepted']:,} of {progress['total']:,} accepted, {progress['rejected']:,} rejected, "
        f"{progress['calls']:,} calls, ${progress['spent_usd']:.4f}",
        file=sys.stderr,
    )


def _print_bad_rows(path: str, bad: Sequence[Any]) -> None:
    for row in bad[:10]:
        print(f"{path}:{row.line}: {row.reason}", file=sys.stderr)
    if bad:
        print(f"{path}: {len(bad):,} bad rows left out{'; the first ten are above' if len(bad) > 10 else ''}", file=sys.stderr)
