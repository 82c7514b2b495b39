"""From flags and environment to the values that stages take. The only reader of the environment."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from medkd import config
from medkd.config import ModelConfigs, TeacherConfig
from medkd.errors import ConfigError, InputError, UsageError
from medkd.store.files import Store, open_store

if TYPE_CHECKING:
    from medkd.records import RecordSchema
    from medkd.stages.plan import Plan

# Where a chart mounts the Secret's keys as files.
SECRETS_FOLDER = "/var/run/medkd/secrets"
# By the setting that is wrong, the flags that can have made it so.
_FLAGS_OF = {
    "conversation_topics": "--topic",
    "held_out_topics": "--held-out-topic, --num-topics",
    "conversation_length": "--exchanges",
    "judges": "--judges",
}
CONVERSATION_COLUMNS = ("conversation", "id", "record", "topic", "gold")


def load_configs(args: argparse.Namespace) -> ModelConfigs:
    return config.load(args.config)


def job_index() -> int:
    """The completion index of the Indexed Job that this pod belongs to; 0 outside of one."""
    return int(os.environ.get("JOB_COMPLETION_INDEX", "0"))


def open_prefix(args: argparse.Namespace, stop: threading.Event) -> Store:
    """The run's store, which stops waiting for an unreachable server once `stop` is set."""
    if args.prefix is None:
        raise UsageError("--prefix: missing; say where the run lies, a folder or s3://bucket/path")
    store = open_store(args.prefix, storage_options(args))
    store.stop = stop
    return store


def storage_options(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the run's file system."""
    try:
        options = json.loads(args.storage_options) if args.storage_options else {}
        if not isinstance(options, dict):
            raise ValueError
    except ValueError:
        # Not shown: it may hold a key.
        raise UsageError(
            '--storage-options: expected a JSON object for the file system, for example {"endpoint_url": "http://minio:9000"}'
        ) from None
    return options


def lending_stores(args: argparse.Namespace, stop: threading.Event) -> list[Store]:
    """The prefixes of the runs whose data sets this run uses, opened as its own is."""
    return [open_prefix(argparse.Namespace(**{**vars(args), "prefix": url}), stop) for url in args.dataset_from or ()]


def num_shards(args: argparse.Namespace, plan: Plan) -> int:
    """Shards of the run; none where it has no samples of its own."""
    return (args.num_shards or 1) if plan.total_samples else 0


def teacher_of(configs: ModelConfigs, args: argparse.Namespace) -> TeacherConfig:
    teacher = configs.teacher(args.teacher)
    url = args.teacher_url or os.environ.get("MEDKD_TEACHER_URL")
    return teacher.model_copy(update={"base_url": url.rstrip("/")}) if url else teacher


def planned_teacher(store: Store, configs: ModelConfigs, args: argparse.Namespace) -> tuple[str, TeacherConfig]:
    """The teacher that the plan names, as this configuration reaches it; ConfigError where it is another one by now."""
    from medkd.stages.plan import load_plan, teacher_identity

    planned = load_plan(store)[0].teacher
    args.teacher = planned["name"]
    teacher = teacher_of(configs, args)
    now = teacher_identity(args.teacher, teacher)
    changed = [key for key in now if now[key] != planned.get(key)]
    if changed:
        raise ConfigError(f"teacher_models.{args.teacher}.{changed[0]}: differs from the plan; restore it or plan a new run")
    return args.teacher, teacher


def teacher_client(args: argparse.Namespace, teacher: TeacherConfig, stop: threading.Event) -> Any:
    from medkd.teacher.client import TeacherClient

    proxies = {
        scheme: os.environ[name] for scheme in ("http", "https") for name in (f"{scheme}_proxy".upper(),) if name in os.environ
    }
    return TeacherClient(
        teacher,
        api_key=api_key(args.teacher, teacher),
        share=args.parallel,
        stop=stop,
        proxies=proxies or None,
        ca_bundle=args.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE"),
    )


def api_key(name: str, teacher: TeacherConfig) -> str | None:
    """The teacher's key from the mounted Secret or the environment; ConfigError naming both where there is none."""
    if teacher.auth == "none" or teacher.api_key_env is None:
        return None
    file = Path(os.environ.get("MEDKD_SECRETS", SECRETS_FOLDER)) / teacher.api_key_env
    key = file.read_text().strip() if file.is_file() else os.environ.get(teacher.api_key_env, "").strip()
    if not key:
        raise ConfigError(f"teacher {name}: no key; set the environment variable {teacher.api_key_env} or mount it as {file}")
    return key


def check_hub_token() -> None:
    """ConfigError where HF_TOKEN_PATH names a token that is not there: a chart mounts a Secret whether or not it exists."""
    path = os.environ.get("HF_TOKEN_PATH")
    if path and not Path(path).is_file() and not os.environ.get("HF_TOKEN"):
        raise ConfigError(f"hub: no token at {path}; create the Secret that hub.existingSecret names, with the key hub.tokenKey")


def generation_settings(configs: ModelConfigs, args: argparse.Namespace) -> config.GenerationSettings:
    """Generation settings with the topics and moods of the flags."""
    settings = configs.generation_settings
    changed: dict[str, Any] = {}
    if args.topic:
        changed = {"conversation_topics": tuple(args.topic), "held_out_topics": ()}
    if args.held_out_topic:
        changed["held_out_topics"] = tuple(args.held_out_topic)
    if args.num_topics:
        changed["conversation_topics"] = settings.conversation_topics[: args.num_topics]
    if args.judges:
        changed["judges"] = _judges(args.judges)
    if args.exchanges:
        changed["conversation_length"] = _exchanges(args.exchanges)
    try:
        return config.GenerationSettings.model_validate({**settings.model_dump(), **changed})
    except ValidationError as error:
        problem = config.first_problem(error)
        flags = _FLAGS_OF.get(re.split("[.:]", problem)[0], ", ".join(_FLAGS_OF.values()))
        raise UsageError(f"{flags}: {problem}") from None


def _judges(text: str) -> dict[str, Any]:
    """`0.2`, `openai` or `openai:0.2`."""
    head, colon, tail = text.rpartition(":")
    name, share = (head, tail) if colon else ("", text)
    try:
        return {"teacher": name or None, "share": float(share)}
    except ValueError:
        return {"teacher": text, "share": 1.0}


def judge_of(configs: ModelConfigs, settings: config.GenerationSettings, args: argparse.Namespace) -> TeacherConfig | None:
    """The other teacher that extracts samples a second time; None where there is none, or the run's own does."""
    if settings.judges is None or settings.judges.teacher in (None, args.teacher):
        return None
    return configs.teacher(str(settings.judges.teacher))


def planned_judge(store: Store, configs: ModelConfigs, args: argparse.Namespace, stop: threading.Event) -> Any:
    """The judge that the plan names, with its client; None where it names none. ConfigError where it is another one by now."""
    from medkd.stages.plan import load_plan, teacher_identity
    from medkd.stages.shard_work import Judge

    planned = (load_plan(store)[0].judges or {}).get("teacher")
    if not planned:
        return None
    judge = configs.teacher(planned["name"])
    if teacher_identity(planned["name"], judge) != planned:
        raise ConfigError(f"teacher_models.{planned['name']}: differs from the plan, which has it as judge; restore it")
    return Judge(judge, teacher_client(argparse.Namespace(**{**vars(args), "teacher": planned["name"]}), judge, stop))


def _exchanges(text: str) -> dict[str, int]:
    low, _, high = text.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise UsageError(f"--exchanges: got {text!r}, expected a range such as 4-8")
    return {"min_exchanges": int(low), "max_exchanges": int(high or low)}


def conversation_source(args: argparse.Namespace, store_options: dict[str, dict[str, Any]]) -> Any:
    """The conversations that the flags name. store_options: how to open those that lie in the same kind of store as the run."""
    from medkd.stages.plan import ConversationSource
    from medkd.store.conversations import Columns, survey

    if not args.conversations:
        return None
    if args.contains_phi is None:
        raise UsageError(
            "--contains-phi: missing; say yes if --conversations hold patient data, no if they are invented or de-identified"
        )
    columns = Columns(
        conversation=args.conversation_column,
        id=args.id_column,
        record=args.record_column,
        topic=args.topic_column,
        gold=args.gold_column,
    )
    files = survey(args.conversations, columns, store_options)
    return ConversationSource(files=tuple(files), columns=columns, contains_phi=args.contains_phi == "yes")


def record_schema(args: argparse.Namespace) -> RecordSchema:
    """The record schema that `--record-schema` names; ConfigError saying what is wrong with its file."""
    from medkd.records import PATIENT_RECORD, RECORD_SCHEMAS
    from medkd.schema_documents import schema_of
    from medkd.store.source_files import opened

    named = args.record_schema
    if not named:
        return PATIENT_RECORD
    if named in RECORD_SCHEMAS:
        return RECORD_SCHEMAS[named]
    try:
        with opened(named, file_options(args)) as file:
            return schema_of(json.loads(file.read()))
    except InputError as error:
        raise ConfigError(f"--record-schema {error}; expected a JSON Schema file, or {', '.join(RECORD_SCHEMAS)}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"--record-schema {named}: not JSON at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise ConfigError(f"--record-schema {named}: {error}") from None


def shard_options(args: argparse.Namespace, teacher: TeacherConfig) -> Any:
    from medkd.stages.shard_options import ShardOptions

    return ShardOptions(
        shard=args.shard_index,
        writer=f"{process_name()}:{uuid.uuid4().hex[:8]}",
        # Batches are prepared while others are with the provider.
        concurrency=2 * teacher.limits.batch_size
        if teacher.mode == "batch"
        else max(1, teacher.limits.max_concurrency // args.parallel),
        budget_usd=args.budget_usd,
        progress_seconds=args.progress_seconds,
    )


def student_of(args: argparse.Namespace) -> config.StudentConfig:
    student = load_configs(args).student(args.student)
    epochs = getattr(args, "num_epochs", None)
    return student.model_copy(update={"num_epochs": epochs}) if epochs else student


def read_gold(args: argparse.Namespace) -> Any:
    """The known records of `--gold`; none without it."""
    from medkd.store import gold_files

    return gold_files.read(args.gold, file_options(args)) if args.gold else gold_files.Gold()


def file_options(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """How files of other folders are opened: those in the same kind of store as the run as the run's are."""
    return {"s3": found} if (found := storage_options(args)) else {}


def process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def repeat_flags(args: argparse.Namespace, *names: str) -> list[str]:
    """The given flags again, as a command line for a child process."""
    flags: list[str] = []
    for name in names:
        value = getattr(args, name, None)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one is not False:
                flags += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
    return flags


def plan_flags(args: argparse.Namespace) -> list[str]:
    conversations = ("conversations", "contains_phi", *(f"{name}_column" for name in CONVERSATION_COLUMNS))
    what = (
        "teacher",
        "student",
        "num_samples",
        "num_shards",
        "seed",
        "topic",
        "held_out_topic",
        "num_topics",
        "exchanges",
        "judges",
        "record_schema",
        "dataset_from",
    )
    return repeat_flags(args, *what, *conversations, "take_over")


def wants_json(log: str) -> bool:
    return log == "json" or (log == "auto" and not sys.stderr.isatty())


def log_context(args: argparse.Namespace) -> dict[str, Any]:
    context = {"stage": args.name}
    if getattr(args, "shard_index", None) is not None:
        context["shard"] = args.shard_index
    if "RANK" in os.environ:
        context["rank"] = int(os.environ["RANK"])
    return context
