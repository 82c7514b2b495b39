"""The verb `evaluate`: a student on its run's test rows, or on conversations from elsewhere."""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path
from typing import Any

from medkd.commands.numbers import count, dollars, positive
from medkd.commands.settings import (
    file_options,
    load_configs,
    open_prefix,
    read_gold,
    student_of,
    teacher_client,
    teacher_of,
)
from medkd.errors import BelowBarError, ConfigError, UsageError


def evaluate(args: argparse.Namespace, stop: threading.Event) -> int:
    return _evaluate_set(args, stop) if args.conversations else evaluate_run(args, stop)


def evaluate_run(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.quality.verdicts import shortfalls
    from medkd.stages.evaluate import evaluate
    from medkd.stages.report import write_report

    store = open_prefix(args, stop)
    bars = load_configs(args).bars.evaluate
    student = student_of(args)
    scores = evaluate(
        store,
        student_name=args.student,
        student=student,
        gold=read_gold(args),
        gold_source=args.gold_source or "simulator",
        bars=bars,
        few_shot=getattr(args, "few_shot", 0),
        asked_teacher=_asked_teacher(args, stop),
        constrained=_constrained(args),
        stop=stop,
    )
    shown = {name: f"{found['micro']['f1']:.3f}" for name, found in scores["scores"].items()}
    baselines = ", ".join(f"{name} {shown[name]}" for name in ("untrained", "constant", "lexicon"))
    print(
        f"{args.student} against {scores['reference']}: micro-F1 {shown['student']} "
        f"({_interval(scores['intervals']['student'])}) on {scores['num_samples']:,} held-out samples ({baselines})"
    )
    print(f"report: {store.url}/{write_report(store, args.student)}")
    if not scores["bars"]["passed"]:
        raise BelowBarError(
            f"student {args.student}: below a bar of the configuration: {shortfalls(scores['bars'])}. "
            "It is not handed on; extract and results take it with --below-bar"
        )
    return 0


def _asked_teacher(args: argparse.Namespace, stop: threading.Event) -> Any:
    """The teacher that is asked with examples; None without `--few-shot-teacher`."""
    if not getattr(args, "few_shot_teacher", None):
        return None
    from medkd.stages.few_shot import AskedTeacher

    if not args.few_shot:
        raise UsageError("--few-shot: got 0 with --few-shot-teacher, expected at least 1 example")
    args.teacher = args.few_shot_teacher
    teacher = teacher_of(load_configs(args), args)
    try:
        client = teacher_client(args, teacher, stop)
    except ImportError:
        raise ConfigError(
            "--few-shot-teacher: needs package requests, which medkd[teacher] brings; the trainer image has none"
        ) from None
    return AskedTeacher(
        name=args.teacher, teacher=teacher, client=client, num_rows=args.few_shot_rows, budget_usd=args.budget_usd
    )


def _evaluate_set(args: argparse.Namespace, stop: threading.Event) -> int:
    """`--conversations`: a student on conversations from elsewhere; prints the table and where the scores are."""
    from medkd.quality.score_table import score_table
    from medkd.stages import external
    from medkd.stages.evaluate import trained_student
    from medkd.store import gold_files
    from medkd.store.conversations import Columns, stream
    from medkd.student.decode import Extractor

    if not args.gold:
        raise UsageError("--gold: missing; with --conversations name the column that holds their records, or a file of them")
    if not (args.prefix or (args.model and args.output)):
        raise UsageError("--prefix: missing; name the run of --student, or --model FOLDER and --output FOLDER instead of one")
    name = external.set_name(args.conversations, args.set_name)
    separate = gold_files.is_file(args.gold) or Path(args.gold).is_file()
    columns = Columns(
        conversation=args.conversation_column,
        id=args.id_column,
        topic=args.topic_column,
        gold=None if separate else args.gold,
    )
    run = open_prefix(args, stop) if args.prefix else None
    with tempfile.TemporaryDirectory() as scratch:
        model, inputs = (Path(args.model), {}) if args.model or not run else trained_student(run, args.student, Path(scratch))
        extractor = Extractor.load(model, constrained=_constrained(args))
        rows = stream(args.conversations, columns, file_options(args))
        gold = read_gold(args) if separate else gold_files.Gold()
        found = external.read_set(name, rows, gold, args.gold_source or "human", extractor.tokenizer.linear.schema)
        student = model.name if args.model else args.student
        summary, predictions = external.evaluate_set(extractor, found, student_name=student, run=run, stop=stop)
    if args.output or not run:
        run, folder = open_prefix(argparse.Namespace(**{**vars(args), "prefix": args.output}), stop), ""
    else:
        folder = external.set_folder(args.student, name)
    path = external.write_set(run, folder, summary, predictions, inputs)
    print(f"{name}: student {student} {score_table(summary)}\n")
    counts = summary["counts"]
    for reason, rows_left in counts["left_out"].items():
        print(f"left out: {rows_left:,} rows, {reason.replace('_', ' ')}")
    if counts["seen_in_training"]:
        print(f"seen in training: {counts['seen_in_training']:,} of these conversations, which flatter the student")
    print(f"scores: {run.url}/{path}")
    return 0


def _constrained(args: argparse.Namespace) -> bool:
    """What the flag says; without one, the configuration."""
    asked: bool | None = getattr(args, "constrained", None)
    return load_configs(args).evaluate.constrained if asked is None else asked


def _interval(found: dict[str, float]) -> str:
    return f"95% interval {found['low']:.3f} to {found['high']:.3f}"


def add_decoding_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--constrained",
        action=argparse.BooleanOptionalAction,
        help="let students write nothing but valid records (package llguidance); else as the configuration's evaluate says",
    )


def add_few_shot_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--few-shot",
        type=count,
        default=3,
        help="examples of the train split in the prompts of a causal student before training, and of --few-shot-teacher; 0: none",
    )
    parser.add_argument(
        "--few-shot-teacher", metavar="NAME", help="a teacher in the configuration to ask with examples, too; paid"
    )
    parser.add_argument("--few-shot-rows", type=positive, default=50, help="test rows that it answers, at most")
    parser.add_argument("--budget-usd", type=dollars, help="US dollars that the run with these calls may cost at most")
    parser.add_argument("--teacher-url", help="base URL instead of the configured one; also MEDKD_TEACHER_URL")
    parser.add_argument("--ca-bundle", help="certificates to trust instead of the usual ones")
    parser.set_defaults(parallel=1)


def add_set_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--conversations",
        action="append",
        help="score the student on these conversations instead, for which --gold names the column of the records or their file: "
        "CSV, JSONL (also compressed) or Parquet file, folder or glob, at any URL that fsspec opens; may be given again",
    )
    parser.add_argument("--conversation-column", default="conversation", help="with --conversations: column of the text")
    parser.add_argument("--id-column", help="with --conversations: column of the conversation's own id; else file and line")
    parser.add_argument("--topic-column", help="with --conversations: column of the topic")
    parser.add_argument("--model", help="with --conversations: folder of a trained student; else the one that --prefix holds")
    parser.add_argument("--set-name", help="with --conversations: what the set is called; else as its first file")
    parser.add_argument("--output", help="with --conversations: folder for the scores; else students/NAME/evaluate/SET")
