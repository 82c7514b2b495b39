"""The command line: every verb with its flags, their units and defaults."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from medkd import __version__
from medkd.commands import cluster, looking, plans, review, scoring, stages, tools
from medkd.commands.numbers import dollars, gibibytes, positive
from medkd.commands.settings import job_index
from medkd.errors import UsageError
from medkd.samples import REFERENCES
from medkd.stages.sequence import STAGES


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults where there is one; `(default: None)` tells nobody what happens without the flag, which the help says itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "" or isinstance(action.default, list):
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def split_trailing(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Arguments before and after a lone `--`."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="medkd", description="Distil a teacher LLM into a small student that writes patients' records.")
    parser.add_argument("--version", action="version", version=f"medkd {__version__}")
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, function: Callable[..., int], help_text: str, among: Any = verbs) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = among.add_parser(name, help=help_text, description=help_text, formatter_class=_Help)
        added.set_defaults(verb=function)
        added.add_argument("--log", choices=("auto", "json", "text"), default="auto", help="form of the log on stderr")
        added.add_argument(
            "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="least level to log"
        )
        return added

    run = verb("run", stages.run, "run all stages as processes on this machine; running it again continues")
    _add_run_flags(run)
    plan = verb("plan", plans.plan, "preflight, then fix what every sample of a run will be")
    _add_shared(plan)
    _add_plan(plan)
    _add_teacher(plan)
    plan.add_argument("--student", default="tiny-t5", help="student of the later stages, checked here")
    plan.add_argument("--owner", help="who works on this run, for example the release's name")
    _add_gpus(plan)
    plan.add_argument("--skip-preflight", action="store_true", help="make none of preflight's checks and pay no first call")
    generate = verb(
        "generate", stages.generate, "one shard of a planned run, or with --output_path samples into one JSON lines file"
    )
    _add_shared(generate, prefix_required=False)
    _add_plan(generate)
    _add_teacher(generate)
    generate.add_argument("--shard-index", type=int, default=job_index(), help="which shard; a Job's completion index by itself")
    generate.add_argument("--progress-seconds", type=float, default=5.0, help="seconds between two progress writes")
    generate.add_argument("--output-path", "--output_path", help="JSON lines file; plans, generates and exports in one go")
    generate.add_argument("--validate", action="store_true", help="check each row of the file again and say how many are valid")
    prepare = verb(
        "prepare", stages.prepare, "verify shards, drop duplicates, split, write the data set and the student's tokens"
    )
    _add_shared(prepare)
    _add_student(prepare)
    _add_lenders(prepare)
    prepare.add_argument(
        "--review",
        action="store_true",
        help="make a data set that stands again if people's judgements came in after it; a new one has them in any case",
    )
    train = verb("train", stages.train, "fine-tune a student with DeepSpeed on the ranks of this machine")
    _add_shared(train, prefix_required=False)
    _add_student(train)
    _add_training(train)
    evaluate = verb(
        "evaluate", scoring.evaluate, "score the student on the held-out split beside its baselines, and write the report"
    )
    _add_shared(evaluate, prefix_required=False)
    _add_student(evaluate)
    _add_gold(evaluate)
    scoring.add_set_flags(evaluate)
    scoring.add_few_shot_flags(evaluate)
    scoring.add_decoding_flag(evaluate)
    report = verb("report", tools.report, "write the run's report page from what lies under its prefix")
    _add_shared(report)
    _add_student(report)
    export = verb("export", tools.export, "write a run's rows as JSON lines {instruction, input, output}")
    _add_shared(export)
    export.add_argument("--output", required=True, help="JSON lines file to write")
    reviewing = verbs.add_parser("review", help="let people check rows by file: export draws them, import takes in what they say")
    review.add_flags(verb, _add_shared, reviewing.add_subparsers(dest="what", required=True, metavar="export|import"))
    looking.add_inspect_flags(
        verb(
            "inspect",
            looking.inspect,
            "rows, rejects and calls of a run, while it goes and after; prints conversations, which may be patient data",
        )
    )
    looking.add_diff_flags(
        verb("diff", looking.diff, "two runs or two students beside each other: gains and losses with paired intervals")
    )
    purge = verb("purge", tools.purge, "remove a run and all that it wrote, and say what that was; asks for the run's name first")
    _add_shared(purge)
    purge.add_argument("--teacher-url", help="as the run was given it: where its open batches are cancelled")
    purge.add_argument("--ca-bundle", help="certificates to trust instead of the usual ones")
    purge.set_defaults(parallel=1)
    purge.add_argument("--yes", action="store_true", help="do not ask")
    purge.add_argument("--take-over", action="store_true", help="although somebody gave a sign of life a moment ago")
    extract = verb("extract", tools.extract, "print the record of the conversation on standard input, or write those of files")
    extract.add_argument("--model", required=True, help="folder of a trained student")
    extract.add_argument(
        "--input",
        action="append",
        help="conversations: CSV, JSONL (also compressed), Parquet, or one .txt file each; file, folder or glob, at any URL that "
        "fsspec opens; may be given again",
    )
    extract.add_argument("--output", help="with --input: JSON lines file to write, a line for each conversation")
    extract.add_argument("--conversation-column", default="conversation", help="with --input: column of the text")
    extract.add_argument("--id-column", help="with --input: column of the conversation's own id; else file and line")
    extract.add_argument(
        "--constrained", action="store_true", help="let the student write nothing but valid records (package llguidance)"
    )
    extract.add_argument("--batch-size", type=positive, default=32, help="with --input: conversations answered at once")
    extract.add_argument("--usd-per-hour", type=dollars, help="with --input: what this machine costs; prints money per 1,000")
    extract.add_argument("--prefix", help="with --input: the run whose teacher's cost per 1,000 is printed beside the student's")
    extract.add_argument("--storage-options", help="JSON object for the file system, for example an endpoint")
    _add_below_bar(extract)
    preflight = verb("preflight", plans.preflight, "check everything a run needs and say all that is wrong; pays one tiny call")
    _add_before(preflight)
    _add_gpus(preflight)
    estimate = verb("estimate", plans.estimate, "calls, tokens, cost and hours of a run; asks nobody, pays nothing")
    _add_before(estimate, prefix_required=False)
    estimate.add_argument(
        "--from",
        dest="measured_from",
        metavar="PREFIX",
        help="a pilot or a run whose calls, tokens, rejected tries and seconds per call are taken in place of the assumptions",
    )
    estimate.add_argument(
        "--seconds-per-call", type=positive, help="how long the teacher takes to answer; else as --from measured, or 10"
    )
    estimate.add_argument("--json", action="store_true", help="the same as JSON")
    costs = verb("costs", tools.costs, "money by run, topic, teacher and day, from the ledgers of a run or of a folder of runs")
    _add_shared(costs)
    costs.add_argument("--json", action="store_true", help="the same as JSON")
    _add_cluster_verbs(verb)
    check = verb("config", tools.config, "check the configuration file, or print its JSON Schema")
    check.add_argument("what", choices=("check", "schema"))
    check.add_argument("--config", help="configuration file; without it the shipped one")
    _add_simulate(verb("simulate", tools.simulate, "serve a simulated teacher; `-- COMMAND` runs a command that finds it"))
    return parser


def _add_shared(parser: argparse.ArgumentParser, prefix_required: bool = True) -> None:
    parser.add_argument("--config", help="configuration file; without it the shipped one")
    parser.add_argument("--prefix", required=prefix_required, help="where the run lies: a folder or s3://bucket/path")
    parser.add_argument("--storage-options", help="JSON object for the file system, for example an endpoint")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-samples", "--num_samples", type=positive, help="accepted samples asked for; else the configuration's"
    )
    parser.add_argument("--num-shards", type=positive, help="shards of the run; else 4 in run, 1 in other verbs")
    parser.add_argument("--seed", type=int, default=1, help="of the plan: equal seeds give equal samples")
    parser.add_argument("--topic", action="append", help="only this topic; may be given again, need not be configured")
    parser.add_argument("--held-out-topic", action="append", help="a topic that is only tested on; may be given again")
    parser.add_argument("--num-topics", type=positive, help="only the first so many topics of the configuration")
    parser.add_argument(
        "--judges",
        metavar="SHARE|NAME[:SHARE]",
        help="extract this share of the accepted samples a second time, by another configured teacher or again by the same one; "
        "disagreement is kept by field",
    )
    _add_record_schema(parser)
    parser.add_argument("--exchanges", help="exchanges of a conversation, for example 4-8; else the configuration's")
    parser.add_argument(
        "--conversations",
        action="append",
        help="existing conversations: CSV, JSONL (also compressed) or Parquet file, folder or glob, at any URL that fsspec opens",
    )
    parser.add_argument("--conversation-column", default="conversation", help="column of the text")
    parser.add_argument("--id-column", help="column of the conversation's own id")
    parser.add_argument("--record-column", help="column of a record somebody wrote; then no teacher is asked")
    parser.add_argument("--topic-column", help="column of the topic")
    parser.add_argument("--gold-column", help="column of a record known to be right: what teacher and student are scored on")
    parser.add_argument(
        "--contains-phi",
        choices=("yes", "no"),
        help="whether --conversations hold patient data; yes: only teachers marked phi_agreement are asked",
    )
    _add_lenders(parser)
    parser.add_argument("--take-over", action="store_true", help="work on a prefix although somebody else did within ten minutes")


def _add_record_schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--record-schema",
        metavar="FILE|NAME",
        help="your own record: a JSON Schema file with a rule for each field, at any URL that fsspec opens; else patient_record",
    )


def _add_lenders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset-from",
        action="append",
        metavar="PREFIX",
        help="use the data set of the run there; may be given again. A run without --num-samples then generates none itself",
    )


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", "--teacher-model", "--teacher_model", default="simulator", help="name in the configuration")
    parser.add_argument("--teacher-url", help="base URL instead of the configured one; also MEDKD_TEACHER_URL")
    parser.add_argument(
        "--budget-usd", type=dollars, help="US dollars the run may cost at most; needed for a teacher with a price"
    )
    parser.add_argument("--ca-bundle", help="certificates to trust instead of the usual ones")
    parser.add_argument("--parallel", type=positive, default=1, help="shards that run at once and share the key's limits")


def _add_student(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", "--model-type", "--model_type", default="tiny-t5", help="name in the configuration")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks", type=positive, help="processes on this machine; else one per GPU, without GPUs one per core, at most 2"
    )
    parser.add_argument(
        "--num-epochs", "--num_epochs", type=positive, help="passes over the train split; else the configuration's"
    )
    parser.add_argument("--train-data", "--train_data", help="JSON lines file instead of a run's data set")
    parser.add_argument("--output-dir", "--output_dir", help="with --train_data: folder for the trained model")
    _add_record_schema(parser)
    parser.add_argument("--evaluate", action="store_true", help="with --train_data: score the model afterwards")
    parser.add_argument(
        "--dry-run", action="store_true", help="only print DeepSpeed's configuration and an estimate of each GPU's memory"
    )
    parser.add_argument("--world-size", type=positive, help="with --dry-run: GPUs of all machines; else as --ranks")
    parser.add_argument("--gpu-memory-gib", type=gibibytes, help="with --dry-run: memory of a GPU; else of this machine's")
    parser.add_argument(
        "--grace-seconds",
        type=positive,
        default=100,
        help="seconds that ranks told to stop have before they are killed; a checkpoint is saved if the last one took less",
    )
    _add_gold(parser)


def _add_gold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gold",
        help="records known to be right, to score against: {conversation_sha256 or id, record} as JSON lines, CSV or Parquet",
    )
    parser.add_argument(
        "--gold-source",
        choices=REFERENCES,
        help="whose these are; else simulator for the run's own test rows, human for evaluate --conversations",
    )


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    _add_shared(parser)
    _add_plan(parser)
    _add_teacher(parser)
    _add_student(parser)
    _add_gold(parser)
    parser.add_argument(
        "--ranks", type=positive, help="training processes; else one per GPU, without GPUs one per core, at most 2"
    )
    parser.add_argument(
        "--from",
        dest="start_from",
        choices=STAGES,
        help="do this stage and those after it again",
    )
    parser.set_defaults(parallel=4)


def _add_before(parser: argparse.ArgumentParser, prefix_required: bool = True) -> None:
    _add_shared(parser, prefix_required)
    _add_plan(parser)
    _add_teacher(parser)
    parser.add_argument("--student", default="tiny-t5", help="student of the later stages, checked here")


def _add_gpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpu-memory-gib", type=gibibytes, help="memory of a GPU that will train; checks that the student fits")
    parser.add_argument("--world-size", type=positive, default=1, help="with --gpu-memory-gib: GPUs that train, of all machines")


def _add_cluster_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    status = verb("status", cluster.status, "a run on the cluster in one screen: stages, money, what is wrong and what to do")
    _add_run_of_cluster(status)
    status.add_argument("--json", action="store_true", help="the same as JSON")
    wait = verb("wait", cluster.wait, "until a run has ended: leaves with 0 complete, 1 failed, 2 neither within --timeout")
    _add_run_of_cluster(wait)
    wait.add_argument("--timeout", type=float, help="seconds to wait; else for as long as it takes")
    logs = verb("logs", cluster.logs, "logs of a run on the cluster, the failed shard's first")
    _add_run_of_cluster(logs)
    logs.add_argument("--stage", choices=(*STAGES, "driver"), help="else the failed stage, or the one that runs")
    logs.add_argument("--shard", type=int, help="of stage generate")
    logs.add_argument("--tail", type=positive, default=100, help="lines of each pod")
    retry = verb("retry", cluster.retry, "start a run's failed stage again; goes on from the store, pays nothing twice")
    _add_run_of_cluster(retry)
    retry.add_argument("--stage", choices=STAGES, help="else the one that failed")
    approve = verb("approve", cluster.approve, "let a run go on that is held after its pilot")
    _add_run_of_cluster(approve)
    _add_shared(approve, prefix_required=False)
    results = verb("results", cluster.results, "copy a run's report, scores and student from its store to a folder here")
    _add_run_of_cluster(results)
    _add_shared(results, prefix_required=False)
    results.add_argument("--student", help="else the one that the run trains")
    everything = ["report", "scores", "model"]
    results.add_argument(
        "--what", nargs="+", choices=everything, default=everything, help="what to copy, one or several; else all"
    )
    results.add_argument("--output", default="results", help="folder to copy to")
    _add_below_bar(results)
    _add_driver(verb("driver", cluster.driver, "release a run's stages on the cluster and say how it is; runs in a pod"))


def _add_below_bar(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--below-bar", action="store_true", help="take the student even if it misses a bar of `bars.evaluate`")


def _add_run_of_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="name of the release; else the only one in the namespace")
    parser.add_argument("-n", "--namespace", help="else the kubeconfig's")
    _add_kubeconfig(parser)


def _add_kubeconfig(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", help="else KUBECONFIG or ~/.kube/config")
    parser.add_argument("--context", help="of the kubeconfig; else its current one")


def _add_driver(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix", required=True, help="where the run lies: s3://bucket/path")
    parser.add_argument("--storage-options", help="JSON object for the file system, for example an endpoint")
    parser.add_argument("--run", required=True, help="name of the release")
    parser.add_argument("--job-prefix", required=True, help="start of the names of the release's objects")
    parser.add_argument("--namespace", required=True, help="of the release")
    parser.add_argument("--owner", help="who works on the prefix, as stage plan was told; else release:NAMESPACE/RUN")
    _add_student(parser)
    parser.add_argument("--max-failed-shards", type=int, default=0, help="shards that may fail for good and the run goes on")
    parser.add_argument(
        "--release-mode",
        choices=("gate", "label"),
        default="gate",
        help="label: set the queue's label at release, for old Kueues",
    )
    parser.add_argument("--listen", default="0.0.0.0:8080", help="address of the live page, metrics and health")
    _add_kubeconfig(parser)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="port; 0: a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--batch-seconds", type=float, default=1.0, help="from the making of a batch to its end")
    parser.add_argument("--requests-per-minute", type=positive, help="limit; more are answered 429")
    parser.add_argument("--tokens-per-minute", type=positive, help="limit; more are answered 429")
    parser.add_argument(
        "--limiter",
        choices=("bucket", "rolling"),
        default="bucket",
        help="how the limits are enforced: refilling evenly, or in every minute wherever it begins",
    )
    parser.add_argument("--api-key", help="the only key it accepts; else any")
    parser.add_argument(
        "--faults",
        default="",
        help="faults by rate (http_500:0.02), in bursts of calls (http_500:0.01x8) or by call number (rate_limit@3-5), "
        "separated by commas; `PUT /faults` with such a text sets others while it runs, `GET /faults` lists all there are",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--write-gold", help="append the true record of each conversation to this file")
