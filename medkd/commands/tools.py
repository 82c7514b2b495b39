"""The verbs around a run: its report and rows, one conversation's record, the simulated teacher, the configuration."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from medkd import config as configuration
from medkd.commands.settings import file_options, load_configs, open_prefix, planned_teacher, process_name, teacher_client
from medkd.errors import ConfigError, MedkdError, UsageError
from medkd.telemetry import event


def report(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.report import write_report

    store = open_prefix(args, stop)
    print(f"report: {store.url}/{write_report(store, args.student)}")
    return 0


def costs(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import costs as ledgers

    found = [cost for name, run in ledgers.find_runs(open_prefix(args, stop)).items() for cost in ledgers.costs_of(name, run)]
    groups = ledgers.by_group(found)
    print(ledgers.as_json(groups) if args.json else "\n".join(ledgers.shown(groups)))
    return 0


def export(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import jsonl

    count = jsonl.write(jsonl.accepted_rows(open_prefix(args, stop)), Path(args.output))
    print(f"{args.output}: {count:,} rows")
    return 0


def purge(args: argparse.Namespace, stop: threading.Event) -> int:
    """Remove a run after its name was typed, or with --yes; prints what is removed."""
    from medkd.stages import purge as purging

    store = open_prefix(args, stop)
    if not args.take_over:
        purging.check_not_live(store)
    found = purging.contents(store)
    for part in found.parts:
        print(f"{part.name:<20} {part.files:>9,} files {part.bytes / 1e6:>12,.2f} MB")
    if found.others:
        print(f"{found.others:,} other files under {store.url} are not the run's and stay")
    name = store.url.rstrip("/").rpartition("/")[2]
    if not args.yes:
        print(f"type the run's name, {name}, to remove all of this for good: ", end="", flush=True)
        if sys.stdin.readline().strip() != name:
            raise UsageError(f"--prefix {store.url}: its name was not typed, nothing was removed; type {name} or pass --yes")
    if batches := purging.open_batches(store):
        # First, while the journals still name them: a batch that is forgotten would be paid and lie with its provider.
        name_of_teacher, teacher = planned_teacher(store, load_configs(args), args)
        client = teacher_client(args, teacher, stop)
        cancelled = purging.cancel_batches(client.batches(stop), batches)
        client.close()
        print(f"{cancelled:,} open batches cancelled with teacher {name_of_teacher}, and what they left there deleted")
    seen = [time.monotonic()]

    def say(removed: int) -> None:
        if time.monotonic() - seen[0] > 5:
            seen[0] = time.monotonic()
            print(f"{removed:,} of {found.files:,} files removed", file=sys.stderr, flush=True)

    purging.purge(store, process_name(), found, say)
    print(f"removed {found.files:,} files, {found.bytes / 1e6:,.2f} MB: the run {name} is gone from {store.url}")
    if store.keeps_versions:
        print("this bucket keeps versions: what was removed stays there as older versions until its lifecycle rule expires them")
    return 0


def extract(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.handover import check_handed_on
    from medkd.store.layout import EVALUATION_FILE

    said = Path(args.model, EVALUATION_FILE)
    if said.exists() and not args.below_bar:
        check_handed_on(said.read_bytes(), str(said))
    if args.input or args.output:
        return _extract_files(args, stop)
    from medkd.quality.schema import bad_values
    from medkd.stages.windowed import read_in_windows
    from medkd.student.decode import Extractor

    conversation = sys.stdin.read()
    if not conversation.strip():
        raise UsageError(
            "standard input: empty; give one conversation, for example: medkd extract --model DIR < conversation.txt"
        )
    extractor = Extractor.load(Path(args.model), constrained=args.constrained)
    result = read_in_windows(extractor, [conversation])[0]
    if result.truncated and result.record is None:
        raise ConfigError(
            f"conversation: longer than the model's limit ({result.length} tokens); shorten it or train with a larger max_length"
        )
    if result.record is None:
        print(result.raw_text)
        raise MedkdError("the model did not write a valid record; its raw text is above")
    if result.unanswered_windows:
        event("the record is of a part of the conversation", windows=result.windows, unanswered=result.unanswered_windows)
    print(json.dumps(result.record, indent=2, ensure_ascii=False))
    for problem in bad_values(result.record, extractor.tokenizer.linear.schema):
        print(f"the schema does not allow {problem}", file=sys.stderr)
    return 0


def _extract_files(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--input` and `--output`: a line for each conversation of the files, then how fast that went and what it cost."""
    if not (args.input and args.output):
        raise UsageError("--input, --output: go together; name the conversations and the JSON lines file for their records")
    from medkd.stages.extract import extract, teachers_price
    from medkd.store.conversations import Columns, stream
    from medkd.student.decode import Extractor

    teacher = teachers_price(open_prefix(args, stop)) if args.prefix else None
    columns = Columns(conversation=args.conversation_column, id=args.id_column)
    rows = stream(args.input, columns, file_options(args), flag="--input")
    extractor = Extractor.load(Path(args.model), constrained=args.constrained)
    done = extract(extractor, rows, Path(args.output), batch_size=args.batch_size, stop=stop)
    others = ", ".join(f"{count:,} {why.replace('_', ' ')}" for why, count in done.outcomes.items() if why != "record")
    print(f"{args.output}: {done.outcomes['record']:,} of {done.outcomes.total():,} with a record{others and f'; {others}'}")
    if done.windowed:
        print(f"{done.windowed:,} were longer than the student reads at once, so their records are merged from windows")
    print(
        f"{done.per_second:,.2f} conversations a second on {extractor.places}, in batches of {args.batch_size}; each waits for "
        f"its batch: p50 {done.within(0.5):,.2f} s, p95 {done.within(0.95):,.2f} s"
    )
    mine = done.usd_per_1000(args.usd_per_hour) if args.usd_per_hour else None
    if mine is not None:
        print(f"student: ${mine:,.4f} per 1,000 conversations, at ${args.usd_per_hour:,.2f} an hour and the machine never idle")
    if teacher:
        ratio = f", {teacher.usd_per_1000 / mine:,.1f} times the student's" if mine else ""
        print(
            f"teacher {teacher.teacher}: ${teacher.usd_per_1000:,.4f} per 1,000 records{ratio} (extraction calls "
            f"of {args.prefix}, rejected ones included)"
        )
    return 0


def simulate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.simulator.server import Server, SimulatorOptions

    options = SimulatorOptions(
        host=args.host,
        port=args.port,
        latency_seconds=args.latency,
        batch_seconds=args.batch_seconds,
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
        limiter=args.limiter,
        api_key=args.api_key,
        faults=args.faults,
        seed=args.seed,
        write_gold=Path(args.write_gold) if args.write_gold else None,
    )
    with Server(options) as server:
        print(f"simulated teacher at {server.url}/v1", file=sys.stderr, flush=True)
        if args.trailing:
            return _run_beside(args.trailing, f"{server.url}/v1", stop)
        stop.wait()
        return 0


def _run_beside(command: list[str], teacher_url: str, stop: threading.Event) -> int:
    """Run a command that finds the simulator in MEDKD_TEACHER_URL; its exit code."""
    process = subprocess.Popen(command, env={**os.environ, "MEDKD_TEACHER_URL": teacher_url})
    told = False
    while True:
        try:
            code = process.wait(timeout=0.2)
            return code if code >= 0 else 128 - code
        except subprocess.TimeoutExpired:
            if stop.is_set() and not told:
                told = True
                process.send_signal(signal.SIGTERM)


def config(args: argparse.Namespace, stop: threading.Event) -> int:
    if args.what == "schema":
        print(json.dumps(configuration.json_schema(), indent=2))
    else:
        configs = load_configs(args)
        print(
            f"configuration is valid: {len(configs.teacher_models)} teachers, {len(configs.student_models)} students, "
            f"{len(configs.generation_settings.conversation_topics)} topics"
        )
    return 0
