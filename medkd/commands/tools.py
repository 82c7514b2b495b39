"""The verbs around a run: its report and rows, one conversation's record, the simulated teacher, the configuration."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from medkd import config as configuration
from medkd.commands.settings import load_configs, open_prefix
from medkd.errors import ConfigError, MedkdError, UsageError


def report(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.report import write_report

    store = open_prefix(args, stop)
    print(f"report: {store.url}/{write_report(store, args.student)}")
    return 0


def export(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import jsonl

    count = jsonl.write(jsonl.accepted_rows(open_prefix(args, stop)), Path(args.output))
    print(f"{args.output}: {count:,} rows")
    return 0


def extract(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.records import PATIENT_RECORD
    from medkd.student.decode import Extractor

    conversation = sys.stdin.read()
    if not conversation.strip():
        raise UsageError(
            "standard input: empty; give one conversation, for example: medkd extract --model DIR < conversation.txt"
        )
    result = Extractor.load(Path(args.model), PATIENT_RECORD).extract([conversation])[0]
    if result.truncated:
        raise ConfigError(
            f"conversation: longer than the model's limit ({result.length} tokens); shorten it or train with a larger max_length"
        )
    if result.record is None:
        print(result.raw_text)
        raise MedkdError("the model did not write a valid record; its raw text is above")
    print(json.dumps(result.record, indent=2, ensure_ascii=False))
    return 0


def simulate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.simulator.server import Server, SimulatorOptions

    options = SimulatorOptions(
        host=args.host,
        port=args.port,
        latency_seconds=args.latency,
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
