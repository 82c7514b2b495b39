"""Every verb of the program: parse, load the configuration, call a stage, print one useful line.

The only reader of arguments, environment and exit codes. Pods run the same verbs with the same flags as people do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from medkd import __version__, config, telemetry
from medkd.config import ModelConfigs, TeacherConfig
from medkd.errors import ConfigError, MedkdError, UsageError
from medkd.store.files import Store, open_store

# Where a chart mounts the Secret's keys as files.
SECRETS_FOLDER = "/var/run/medkd/secrets"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The program: runs one verb and leaves with its exit code (`errors` lists them)."""
    arguments, trailing = _split_trailing(list(sys.argv[1:] if argv is None else argv))
    stop = threading.Event()
    try:
        args = _parser().parse_args(arguments)
        args.trailing = trailing
        telemetry.configure(json_lines=_wants_json(args.log), level=args.log_level, **_log_context(args))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        code = args.verb(args, stop)
    except MedkdError as error:
        print(f"medkd: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except BrokenPipeError:
        code = 0
    sys.stdout.flush()
    # Calls that outlived the grace period may still hold threads; everything durable is written by now.
    os._exit(code or 0)


# --- verbs ------------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd import local

    configs = _configs(args)
    configs.teacher(args.teacher)
    configs.student(args.student)
    if args.num_shards is None:
        args.num_shards = 4
    store = _store(args, stop)
    return local.run(
        store,
        configs,
        local.RunOptions(
            student=args.student,
            num_shards=args.num_shards,
            parallel=min(args.parallel, args.num_shards),
            start_from=args.start_from,
            owner=_owner(),
            shared_flags=_flags(args, "config", "prefix", "storage_options", "log_level"),
            plan_flags=_plan_flags(args),
            teacher_flags=_flags(args, "teacher_url", "budget_usd", "ca_bundle"),
            gold_flags=_flags(args, "gold"),
            ranks=args.ranks,
        ),
        stop,
    )


def _plan(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import control, ownership
    from medkd.stages import plan as planning
    from medkd.teacher import prompts

    configs = _configs(args)
    teacher = _teacher(configs, args)
    planning.check_terms(args.teacher, teacher)
    planning.check_students(configs, [args.student])
    store = _store(args, stop)
    plan = planning.make_plan(
        _settings(configs, args),
        args.teacher,
        teacher,
        seed=args.seed,
        total_samples=args.num_samples,
        prompt_version=prompts.PROMPT_VERSION,
        source=_source(args),
    )
    ownership.take(store, args.owner or _owner(), take_over=args.take_over)
    if not args.skip_preflight and planning.asks_teacher(plan):
        planning.check_model(args.teacher, teacher, _client(args, teacher, stop).models())
    cut = planning.publish(store, plan, teacher, num_shards=args.num_shards or 1, budget_usd=args.budget_usd)
    shard_zero = len(plan.shard_range(0, cut.num_shards))
    control.create_control(store, control.first_control(plan.total_samples, shard_zero, priced=cut.chunk_usd > 0))
    money = f", estimated at ${cut.estimate_usd:.2f}" if cut.estimate_usd else ""
    print(f"planned {plan.total_samples:,} samples in {cut.num_shards} shards{money}: plan {plan.hash[:12]} under {store.url}")
    return 0


def _generate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.generate import generate

    if args.output_path:
        return _generate_file(args, stop)
    configs = _configs(args)
    store = _store(args, stop)
    teacher_name, teacher = _planned_teacher(store, configs, args)
    client = _client(args, teacher, stop)
    manifest = generate(store, teacher, client, _shard_options(args, teacher), stop=stop)
    counts = manifest.counts
    print(
        f"shard {args.shard_index}: {counts['accepted']:,} accepted, {counts['rejected']:,} rejected, {counts['short']:,} short; "
        f"{counts['calls']:,} calls to {teacher_name}, ${manifest.money['spent_usd']:.4f}"
    )
    return 0


def _generate_file(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--output_path`: plan, generate and export in one go, the run's prefix beside the file."""
    from medkd.stages import jsonl
    from medkd.stages import plan as planning
    from medkd.stages.generate import generate
    from medkd.teacher import prompts

    configs = _configs(args)
    teacher = _teacher(configs, args)
    planning.check_terms(args.teacher, teacher)
    args.prefix = args.prefix or f"{args.output_path}.run"
    store = _store(args, stop)
    plan = planning.make_plan(
        _settings(configs, args),
        args.teacher,
        teacher,
        seed=args.seed,
        total_samples=args.num_samples,
        prompt_version=prompts.PROMPT_VERSION,
        source=_source(args),
    )
    if args.budget_usd is None and not teacher.prices.free:
        args.budget_usd = planning.default_budget_usd(plan, teacher)
        print(f"no --budget-usd: this run stops at ${args.budget_usd:.2f}, three times its estimate", file=sys.stderr)
    client = _client(args, teacher, stop)
    planning.check_model(args.teacher, teacher, client.models())
    planning.publish(store, plan, teacher, num_shards=1, budget_usd=args.budget_usd)
    generate(store, teacher, client, _shard_options(args, teacher), stop=stop, on_progress=_print_progress)
    count = jsonl.write(jsonl.accepted_rows(store), Path(args.output_path))
    print(f"{args.output_path}: {count:,} rows")
    if args.validate:
        _, bad = jsonl.read(Path(args.output_path), plan.schema)
        _print_bad_rows(args.output_path, bad)
        print(f"{args.output_path}: {count - len(bad):,} rows valid, {len(bad):,} not")
    return 0


def _prepare(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.prepare import prepare

    student = _configs(args).student(args.student)
    manifest = prepare(_store(args, stop), args.student, student)
    counts = manifest.counts
    print(
        f"data set {counts['data_set_hash'][:12]}: {counts['train']:,} train, {counts['validation']:,} validation, "
        f"{counts['test']:,} test; {counts['duplicates']:,} duplicates left out"
    )
    return 0


def _train(args: argparse.Namespace, stop: threading.Event) -> int:
    if args.train_data:
        return _train_file(args, stop)
    if "RANK" in os.environ:
        return _train_rank(args, stop)
    _configs(args).student(args.student)
    if args.num_epochs:
        raise UsageError(
            "--num-epochs: goes with --train_data; for a run set student_models.<name>.num_epochs, which its tokens carry"
        )
    return _launch(args, stop)


def _train_file(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--train_data`: prepare, train and perhaps evaluate on a JSON lines file; the model lands in `--output_dir`."""
    from medkd.records import PATIENT_RECORD
    from medkd.samples import sha256_hex
    from medkd.stages import jsonl
    from medkd.stages.prepare import read_splits, write_data_set, write_tokens
    from medkd.store import layout, manifests

    if not args.output_dir:
        raise UsageError("--output_dir: missing; say where the model goes, for example --output_dir models/t5")
    student = _student(args)
    rows, bad = jsonl.read(Path(args.train_data), PATIENT_RECORD)
    _print_bad_rows(args.train_data, bad)
    data_hash = sha256_hex(Path(args.train_data).read_bytes())
    args.prefix = f"{args.output_dir}.run"
    store = _store(args, stop)
    manifest = manifests.read(store, layout.DATASET_MANIFEST)
    if manifest is None or manifest.plan_hash != data_hash:
        inputs = {str(args.train_data): data_hash}
        manifest = write_data_set(store, data_hash, PATIENT_RECORD, rows, (), inputs, {"rejected": len(bad)})
    write_tokens(store, args.student, student, read_splits(store, manifest), PATIENT_RECORD, manifest)
    code = _launch(args, stop)
    if code:
        return code
    store.download(f"{layout.student_folder(args.student)}/model", Path(args.output_dir))
    print(f"model: {args.output_dir}")
    return _evaluate(args, stop) if args.evaluate else 0


def _launch(args: argparse.Namespace, stop: threading.Event) -> int:
    """Start the ranks on this machine or, told by PET_* variables, this machine's part of a gang."""
    from medkd.student.launch import launch_training

    flags = _flags(args, "config", "prefix", "storage_options", "log", "log_level", "student", "num_epochs")
    return launch_training(["train", *flags], ranks=args.ranks, environment=dict(os.environ), stop=stop)


def _train_rank(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.train import train
    from medkd.student.launch import ranks_of, report_exit

    ranks = ranks_of(os.environ)
    with report_exit(ranks):
        store = _store(args, stop)
        train(store, student_name=args.student, student=_student(args), ranks=ranks, stop=stop)
    return 0


def _evaluate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.evaluate import evaluate
    from medkd.stages.report import write_report

    store = _store(args, stop)
    scores = evaluate(store, student_name=args.student, student=_student(args), gold=_gold(args.gold), stop=stop)
    shown = {name: f"{found['micro']['f1']:.3f}" for name, found in scores["scores"].items()}
    baselines = ", ".join(f"{name} {shown[name]}" for name in ("untrained", "constant", "lexicon"))
    print(
        f"{args.student} against {scores['reference']}: micro-F1 {shown['student']} on {scores['num_samples']:,} held-out "
        f"samples ({baselines})"
    )
    print(f"report: {store.url}/{write_report(store, args.student)}")
    return 0


def _report(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.report import write_report

    store = _store(args, stop)
    print(f"report: {store.url}/{write_report(store, args.student)}")
    return 0


def _export(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import jsonl

    count = jsonl.write(jsonl.accepted_rows(_store(args, stop)), Path(args.output))
    print(f"{args.output}: {count:,} rows")
    return 0


def _extract(args: argparse.Namespace, stop: threading.Event) -> int:
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


def _simulate(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.simulator.server import Server, SimulatorOptions

    options = SimulatorOptions(
        host=args.host,
        port=args.port,
        latency_seconds=args.latency,
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
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


def _approve(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages.control import Control, read_control, write_control

    store = _store(args, stop)
    before = read_control(store)
    write_control(store, Control(state="run", reason=f"approved (was {before.state}: {before.reason})"))
    print(f"was {before.state} ({before.reason}); runs now")
    return 0


def _config(args: argparse.Namespace, stop: threading.Event) -> int:
    if args.what == "schema":
        print(json.dumps(config.json_schema(), indent=2))
    else:
        configs = _configs(args)
        print(
            f"configuration is valid: {len(configs.teacher_models)} teachers, {len(configs.student_models)} students, "
            f"{len(configs.generation_settings.conversation_topics)} topics"
        )
    return 0


# --- from flags and environment to values -----------------------------------------------------------------------------


def _configs(args: argparse.Namespace) -> ModelConfigs:
    return config.load(args.config)


def _store(args: argparse.Namespace, stop: threading.Event) -> Store:
    try:
        options = json.loads(args.storage_options) if args.storage_options else {}
    except ValueError:
        raise UsageError(f"--storage-options: got {args.storage_options!r}, expected a JSON object for the file system") from None
    store = open_store(args.prefix, options)
    store.stop = stop
    return store


def _teacher(configs: ModelConfigs, args: argparse.Namespace) -> TeacherConfig:
    teacher = configs.teacher(args.teacher)
    url = args.teacher_url or os.environ.get("MEDKD_TEACHER_URL")
    return teacher.model_copy(update={"base_url": url.rstrip("/")}) if url else teacher


def _planned_teacher(store: Store, configs: ModelConfigs, args: argparse.Namespace) -> tuple[str, TeacherConfig]:
    """The teacher that the plan names, as this configuration reaches it; ConfigError where it is another one by now."""
    from medkd.stages.plan import load_plan, teacher_identity

    planned = load_plan(store)[0].teacher
    args.teacher = planned["name"]
    teacher = _teacher(configs, args)
    now = teacher_identity(args.teacher, teacher)
    changed = [key for key in now if now[key] != planned.get(key)]
    if changed:
        raise ConfigError(f"teacher_models.{args.teacher}.{changed[0]}: differs from the plan; restore it or plan a new run")
    return args.teacher, teacher


def _client(args: argparse.Namespace, teacher: TeacherConfig, stop: threading.Event) -> Any:
    from medkd.teacher.client import TeacherClient

    proxies = {
        scheme: os.environ[name] for scheme in ("http", "https") for name in (f"{scheme}_proxy".upper(),) if name in os.environ
    }
    return TeacherClient(
        teacher,
        api_key=_api_key(args.teacher, teacher),
        share=args.parallel,
        stop=stop,
        proxies=proxies or None,
        ca_bundle=args.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"),
    )


def _api_key(name: str, teacher: TeacherConfig) -> str | None:
    """The teacher's key from the mounted Secret or the environment; ConfigError naming both where there is none."""
    if teacher.auth == "none" or teacher.api_key_env is None:
        return None
    file = Path(os.environ.get("MEDKD_SECRETS", SECRETS_FOLDER)) / teacher.api_key_env
    key = file.read_text().strip() if file.is_file() else os.environ.get(teacher.api_key_env, "").strip()
    if not key:
        raise ConfigError(f"teacher {name}: no key; set the environment variable {teacher.api_key_env} or mount it as {file}")
    return key


def _settings(configs: ModelConfigs, args: argparse.Namespace) -> config.GenerationSettings:
    """Generation settings with the topics and moods of the flags."""
    settings = configs.generation_settings
    changed: dict[str, Any] = {}
    if args.topic:
        changed = {"conversation_topics": tuple(args.topic), "held_out_topics": ()}
    if args.held_out_topic:
        changed["held_out_topics"] = tuple(args.held_out_topic)
    if args.num_topics:
        changed["conversation_topics"] = settings.conversation_topics[: args.num_topics]
    if args.exchanges:
        changed["conversation_length"] = _exchanges(args.exchanges)
    try:
        return config.GenerationSettings.model_validate({**settings.model_dump(), **changed})
    except ValueError as error:
        raise UsageError(f"--topic, --held-out-topic: {str(error).splitlines()[2].strip()}") from None


def _exchanges(text: str) -> dict[str, int]:
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise UsageError(f"--exchanges: got {text!r}, expected a range such as 4-8")
    return {"min_exchanges": int(low), "max_exchanges": int(high or low)}


def _source(args: argparse.Namespace) -> Any:
    from medkd.stages.plan import ConversationSource
    from medkd.store.conversations import Columns, survey

    if not args.conversations:
        return None
    columns = Columns(
        conversation=args.conversation_column, id=args.id_column, record=args.record_column, topic=args.topic_column
    )
    return ConversationSource(files=tuple(survey(args.conversations, columns)), columns=columns)


def _shard_options(args: argparse.Namespace, teacher: TeacherConfig) -> Any:
    from medkd.stages.generate import ShardOptions

    return ShardOptions(
        shard=args.shard_index,
        writer=f"{_owner()}:{uuid.uuid4().hex[:8]}",
        concurrency=max(1, teacher.limits.max_concurrency // args.parallel),
        budget_usd=args.budget_usd,
        progress_seconds=args.progress_seconds,
    )


def _student(args: argparse.Namespace) -> config.StudentConfig:
    student = _configs(args).student(args.student)
    epochs = getattr(args, "num_epochs", None)
    return student.model_copy(update={"num_epochs": epochs}) if epochs else student


def _gold(path: str | None) -> dict[str, Any] | None:
    """Records by conversation hash, as `medkd simulate --write-gold` appends them."""
    if path is None:
        return None
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        return {row["conversation_sha256"]: row["record"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--gold {path}: not a file of lines {{conversation_sha256, record}} ({type(error).__name__})"
        ) from None


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _flags(args: argparse.Namespace, *names: str) -> list[str]:
    """The given flags again, as a command line for a child process."""
    flags: list[str] = []
    for name in names:
        value = getattr(args, name, None)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one is not False:
                flags += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
    return flags


def _plan_flags(args: argparse.Namespace) -> list[str]:
    conversations = ("conversations", "conversation_column", "id_column", "record_column", "topic_column")
    what = ("teacher", "student", "num_samples", "num_shards", "seed", "topic", "held_out_topic", "num_topics", "exchanges")
    return _flags(args, *what, *conversations, "take_over")


def _wants_json(log: str) -> bool:
    return log == "json" or (log == "auto" and not sys.stderr.isatty())


def _log_context(args: argparse.Namespace) -> dict[str, Any]:
    context = {"stage": args.name}
    if getattr(args, "shard_index", None) is not None:
        context["shard"] = args.shard_index
    if "RANK" in os.environ:
        context["rank"] = int(os.environ["RANK"])
    return context


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


# --- the command line -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def _split_trailing(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments before and after a lone `--`."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def _dollars(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected US dollars, for example 5 or 0.50")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="medkd", description="Distil a teacher LLM into a small student that writes patients' records.")
    parser.add_argument("--version", action="version", version=f"medkd {__version__}")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Callable[..., int], help_text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name, help=help_text, description=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        added.set_defaults(verb=function)
        added.add_argument("--log", choices=("auto", "json", "text"), default="auto", help="form of the log on stderr")
        added.add_argument(
            "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="least level to log"
        )
        return added

    run = verb("run", _run, "run all stages as processes on this machine; running it again continues")
    _add_run_flags(run)
    plan = verb("plan", _plan, "fix what every sample of a run will be; checks key, model, store and budget, pays nothing")
    _add_shared(plan)
    _add_plan(plan)
    _add_teacher(plan)
    plan.add_argument("--student", default="tiny-t5", help="student of the later stages, checked here")
    plan.add_argument("--owner", help="who works on this run, for example the release's name")
    plan.add_argument("--skip-preflight", action="store_true", help="do not ask the teacher whether it knows key and model")
    generate = verb("generate", _generate, "one shard of a planned run, or with --output_path samples into one JSON lines file")
    _add_shared(generate, prefix_required=False)
    _add_plan(generate)
    _add_teacher(generate)
    shard_index = os.environ.get("JOB_COMPLETION_INDEX", "0")
    generate.add_argument(
        "--shard-index", type=int, default=int(shard_index), help="which shard; a Job's completion index by itself"
    )
    generate.add_argument("--progress-seconds", type=float, default=5.0, help="seconds between two progress writes")
    generate.add_argument("--output-path", "--output_path", help="JSON lines file; plans, generates and exports in one go")
    generate.add_argument("--validate", action="store_true", help="check each row of the file again and say how many are valid")
    prepare = verb("prepare", _prepare, "verify shards, drop duplicates, split, write the data set and the student's tokens")
    _add_shared(prepare)
    _add_student(prepare)
    train = verb("train", _train, "fine-tune a student with DeepSpeed on the ranks of this machine")
    _add_shared(train, prefix_required=False)
    _add_student(train)
    _add_training(train)
    evaluate = verb("evaluate", _evaluate, "score the student on the held-out split beside its baselines, and write the report")
    _add_shared(evaluate)
    _add_student(evaluate)
    _add_gold(evaluate)
    report = verb("report", _report, "write the run's report page from what lies under its prefix")
    _add_shared(report)
    _add_student(report)
    export = verb("export", _export, "write a run's rows as JSON lines {instruction, input, output}")
    _add_shared(export)
    export.add_argument("--output", required=True, help="JSON lines file to write")
    extract = verb("extract", _extract, "print the record of the conversation on standard input")
    extract.add_argument("--model", required=True, help="folder of a trained student")
    approve = verb("approve", _approve, "let a run go on that waits after its pilot")
    _add_shared(approve)
    check = verb("config", _config, "check the configuration file, or print its JSON Schema")
    check.add_argument("what", choices=("check", "schema"))
    check.add_argument("--config", help="configuration file; without it the shipped one")
    _add_simulate(verb("simulate", _simulate, "serve a simulated teacher; `-- COMMAND` runs a command that finds it"))
    return parser


def _add_shared(parser: argparse.ArgumentParser, prefix_required: bool = True) -> None:
    parser.add_argument("--config", help="configuration file; without it the shipped one")
    parser.add_argument("--prefix", required=prefix_required, help="where the run lies: a folder or s3://bucket/path")
    parser.add_argument("--storage-options", help="JSON object for the file system, for example an endpoint")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-samples", "--num_samples", type=_positive, help="accepted samples asked for; else the configuration's"
    )
    parser.add_argument("--num-shards", type=_positive, help="shards of the run")
    parser.add_argument("--seed", type=int, default=1, help="of the plan: equal seeds give equal samples")
    parser.add_argument("--topic", action="append", help="only this topic; may be given again, need not be configured")
    parser.add_argument("--held-out-topic", action="append", help="a topic that is only tested on; may be given again")
    parser.add_argument("--num-topics", type=_positive, help="only the first so many topics of the configuration")
    parser.add_argument("--exchanges", help="exchanges of a conversation, for example 4-8; else the configuration's")
    parser.add_argument(
        "--conversations", action="append", help="existing conversations: CSV, JSONL or Parquet file, folder or glob"
    )
    parser.add_argument("--conversation-column", default="conversation", help="column of the text")
    parser.add_argument("--id-column", help="column of the conversation's own id")
    parser.add_argument("--record-column", help="column of a record somebody wrote; then no teacher is asked")
    parser.add_argument("--topic-column", help="column of the topic")
    parser.add_argument("--take-over", action="store_true", help="work on a prefix although somebody else did within ten minutes")


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", "--teacher-model", "--teacher_model", default="simulator", help="name in the configuration")
    parser.add_argument("--teacher-url", help="base URL instead of the configured one; also MEDKD_TEACHER_URL")
    parser.add_argument(
        "--budget-usd", type=_dollars, help="US dollars the run may cost at most; needed for a teacher with a price"
    )
    parser.add_argument("--ca-bundle", help="certificates to trust instead of the usual ones")
    parser.add_argument("--parallel", type=_positive, default=1, help="shards that run at once and share the key's limits")


def _add_student(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", "--model-type", "--model_type", default="tiny-t5", help="name in the configuration")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks", type=_positive, help="processes on this machine; else one per GPU, without GPUs one per core, at most 2"
    )
    parser.add_argument(
        "--num-epochs", "--num_epochs", type=_positive, help="passes over the train split; else the configuration's"
    )
    parser.add_argument("--train-data", "--train_data", help="JSON lines file instead of a run's data set")
    parser.add_argument("--output-dir", "--output_dir", help="with --train_data: folder for the trained model")
    parser.add_argument("--evaluate", action="store_true", help="with --train_data: score the model afterwards")
    _add_gold(parser)


def _add_gold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gold", help="JSON lines {conversation_sha256, record} to score against")


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    _add_plan(parser)
    _add_teacher(parser)
    _add_student(parser)
    _add_gold(parser)
    parser.add_argument(
        "--ranks", type=_positive, help="training processes; else one per GPU, without GPUs one per core, at most 2"
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        choices=("plan", "generate", "prepare", "train", "evaluate"),
        help="do this stage and those after it again",
    )
    parser.set_defaults(parallel=4)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="port; 0: a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--requests-per-minute", type=_positive, help="limit; more are answered 429")
    parser.add_argument("--tokens-per-minute", type=_positive, help="limit; more are answered 429")
    parser.add_argument("--api-key", help="the only key it accepts; else any")
    parser.add_argument(
        "--faults", default="", help="faults with rates or call numbers, for example http_500:0.02,rate_limit@3-5"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--write-gold", help="append the true record of each conversation to this file")
