"""Every fault of the simulated teacher, one by one, in both protocols: does a shard end as it should, and what did it cost?

    python -m tests.benchmarks.fault_menu [--samples 200] [--only FAULT] [--jobs 4] [--keep FILE]
                                          [--write tests/benchmarks/fault_menu.md]

A fault that a client can get past strikes some calls and the shard has to end complete. One that ends the run strikes from
some call on; the shard has to stop with the right exit code and message, and to end complete once the trouble is over.

Shards wait more than they compute, so that `--jobs` of them run at once, each beside a teacher of its own in a process of its
own. `--keep` gets each result as it comes: what stands there without a problem is not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from medkd import config
from medkd.config import TeacherConfig
from medkd.errors import ConfigError, MedkdError, RefusedError, UnreachableError
from medkd.simulator.faults import FAULTS, LOST
from medkd.simulator.refusals import REFUSALS
from medkd.simulator.server import Server, SimulatorOptions
from medkd.simulator.spoilers import RECORD_SPOILERS
from medkd.stages.generate import ShardOptions, generate
from medkd.store import tables
from medkd.store.files import Store, open_store
from medkd.store.manifests import Manifest
from medkd.teacher.client import TeacherClient
from tests.generation import planned

KEY = "sk-menu-0123456789abcdef"
CONCURRENCY = 16
BUDGET_USD = 100.0
USD_PER_TOKEN = 1e-6
GRACE_SECONDS = 0.4
"""Half of the shortest wait that a fault orders: what arrives later than this had time to read the order."""
PROTOCOLS: dict[str, dict[str, Any]] = {
    "openai": {"protocol": "openai", "auth": "bearer", "structured_output": "json_schema"},
    "anthropic": {
        "protocol": "anthropic",
        "auth": "x-api-key",
        "protocol_version": "2023-06-01",
        "structured_output": "output_config",
    },
}
REJECTED = (
    "refusal",
    "finish_content_filter",
    "content_filter",
    "too_long",
    "too_large",
    "not_to_retry_500",
    "prompt_echoed",
    "small_prompt_tokens",
)
"""A client may not ask again after these. On a tenth of the calls they would strike one of 700 samples in all its variations."""
_MONEY, _KEY, _MODEL = "money or spending limit", "does not accept the API key", "does not serve this model"


@dataclass(frozen=True, kw_only=True)
class Course:
    """One fault of the menu."""

    fault: str
    spec: str
    stops: type[MedkdError] | None = None
    """The error that a shard has to stop with; None: it has to end complete."""
    says: str = ""
    """What its message has to say."""
    deadline_seconds: int = 60
    unreachable_seconds: float = 600


def courses() -> Iterator[Course]:
    """The whole menu, each fault at least once."""
    for fault in sorted(FAULTS):
        refusal = REFUSALS.get(fault)
        if fault in _STOPS:
            error, says = _STOPS[fault]
            yield Course(fault=fault, spec=f"{fault}@12-", stops=error, says=says)
        elif fault in ("hang", "blank_lines_forever", "dripping_headers"):
            yield Course(fault=fault, spec=f"{fault}@5,{fault}@17-18", deadline_seconds=12)
        elif refusal is not None and refusal.wait_seconds:
            yield Course(fault=fault, spec=f"{fault}@3,{fault}@12-15,{fault}@30")
        elif fault == "html_403":  # three in a row for one call are believed
            yield Course(fault=fault, spec=f"{fault}@7,{fault}:0.02")
        elif fault in REJECTED:
            yield Course(fault=fault, spec=f"{fault}@7,{fault}:0.05")
        elif refusal is not None or fault in LOST:
            yield Course(fault=fault, spec=f"{fault}@7,{fault}:0.1")
        else:
            yield Course(fault=fault, spec=f"{fault}:{0.3 if fault in RECORD_SPOILERS else 0.2}")
    lasting = {"http_500": "calls failed in a row|no answer for", "rate_limit_none": "no answer for", "loading": "no answer for"}
    for fault, says in lasting.items():
        yield Course(fault=fault, spec=f"{fault}@12-", stops=UnreachableError, says=says, unreachable_seconds=4)
    yield Course(fault="html_403", spec="html_403@12-", stops=RefusedError, says="may not use it")
    yield Course(fault="prompt_echoed", spec="prompt_echoed@1-", stops=ConfigError, says="does not take a request like this")


_STOPS: dict[str, tuple[type[MedkdError], str]] = {
    **{fault: (RefusedError, _MONEY) for fault, refusal in REFUSALS.items() if refusal.ends},
    **dict.fromkeys(("bad_key", "key_echoed", "governor"), (RefusedError, _KEY)),
    **dict.fromkeys(("dead_model", "decommissioned"), (ConfigError, _MODEL)),
    "forbidden": (RefusedError, "may not use it"),
    "unsupported_value": (ConfigError, "does not take a request like this"),
    "not_to_retry": (RefusedError, "a limit of the account is reached"),
    "redirect": (ConfigError, "it cannot be called like this"),
    "rate_limit_long": (RefusedError, "raise its limit or run again later"),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one course, as both sides' books tell it."""

    fault: str
    protocol: str
    spec: str
    ended: str
    """`complete`, or the exit code of the stop and that it was complete later."""
    message: str
    struck: int
    accepted: int
    short: int
    lost: int
    duplicated: int
    paid_twice: int
    after_end: int
    during_wait: int
    calls: int
    billed_usd: float
    spent_usd: float
    possibly_usd: float
    seconds: float

    @property
    def problems(self) -> list[str]:
        found = [f"{name} {getattr(self, name)}" for name in ("short", *COLUMNS[1:6]) if getattr(self, name)]
        if not self.struck:
            found.append("the fault never struck")
        if not self.spent_usd - 1e-9 <= self.billed_usd <= self.spent_usd + self.possibly_usd + 1e-9:
            found.append(f"billed {self.billed_usd:.6f}, spent {self.spent_usd:.6f}, possibly {self.possibly_usd:.6f}")
        return found


def teacher_at(server: Server, protocol: str, **changes: Any) -> TeacherConfig:
    """The simulated teacher in one protocol, with a price and a key."""
    fields = config.load(None).teacher("simulator").model_dump()
    dollars = USD_PER_TOKEN * 1e6
    own = {
        "base_url": f"{server.url}/v1",
        "api_key_env": "MENU_KEY",
        "takes_seed": protocol == "openai",
        "prices": {"input": dollars, "output": dollars},
        "limits": {"max_concurrency": CONCURRENCY},
    }
    return TeacherConfig.model_validate({**fields, **PROTOCOLS[protocol], **own, **changes})


def run_shard(
    store: Store, teacher: TeacherConfig, *, shard: int = 0, max_park_seconds: float = 3600, unreachable_seconds: float = 600
) -> Manifest:
    """One process's work on a shard, in this process."""
    stop = threading.Event()
    client = TeacherClient(
        teacher, api_key=KEY, stop=stop, max_park_seconds=max_park_seconds, unreachable_seconds=unreachable_seconds
    )
    options = ShardOptions(shard=shard, writer=uuid.uuid4().hex, concurrency=CONCURRENCY, budget_usd=BUDGET_USD)
    try:
        return generate(store, teacher, client, options, stop=stop)
    finally:
        client.close()


def serve(course: Course, protocol: str, samples: int, folder: Path, *, seed: int = 1) -> Outcome:
    """Run one course of `samples` samples under `folder`; AssertionError where a shard does not stop as it should."""
    began = time.monotonic()
    options = SimulatorOptions(port=0, api_key=KEY, faults=course.spec, seed=seed, grace_seconds=GRACE_SECONDS)
    with Server(options) as server:
        store = open_store(str(folder))
        teacher = teacher_at(server, protocol, call_deadline_seconds=course.deadline_seconds)
        planned(store, teacher, samples=samples, seed=seed, budget_usd=BUDGET_USD)
        ended, message = "complete", ""
        if course.stops is not None:
            message = _stopped(course, store, teacher)
            ended = f"stopped with {course.stops.exit_code}, then complete"
            set_faults(server, "")
        manifest = run_shard(store, teacher)
        stats: Any = server.counters.stats()
    ids = [row["sample_id"] for row in tables.read(store, manifest.files[:1])]
    ended_ids = {*ids, *(row["sample_id"] for row in tables.read(store, manifest.files[1:2]))}
    return Outcome(
        fault=course.fault,
        protocol=protocol,
        spec=course.spec,
        ended=ended,
        message=message,
        struck=stats["faults"].get(course.fault, 0),
        accepted=manifest.counts["accepted"],
        short=manifest.counts["short"],
        lost=samples - len(ended_ids),
        duplicated=len(ids) - len(set(ids)),
        paid_twice=stats["billed_after_a_good_answer"],
        after_end=stats["calls_after_end"],
        during_wait=stats["calls_during_wait"],
        calls=stats["requests"],
        billed_usd=(stats["billed_prompt_tokens"] + stats["billed_completion_tokens"]) * USD_PER_TOKEN,
        spent_usd=manifest.money["spent_usd"],
        possibly_usd=manifest.money["possibly_usd"],
        seconds=time.monotonic() - began,
    )


def _stopped(course: Course, store: Store, teacher: TeacherConfig) -> str:
    """The message that the shard stopped with."""
    assert course.stops is not None
    try:
        run_shard(store, teacher, unreachable_seconds=course.unreachable_seconds)
    except MedkdError as error:
        right = type(error) is course.stops and any(piece in str(error) for piece in course.says.split("|"))
        assert right, f"{course.fault}: expected {course.stops.__name__} {course.says!r}, got {error!r}"
        return str(error)
    raise AssertionError(f"{course.fault}: expected {course.stops.__name__}, but the shard ended complete")


def set_faults(server: Server, spec: str) -> None:
    """Let other faults strike from now on; what was ordered before is over, as after a top-up or a restart."""
    with urlopen(Request(f"{server.url}/faults", data=spec.encode(), method="PUT"), timeout=60):
        server.counters.begin_anew()


COLUMNS = ("accepted", "lost", "duplicated", "paid_twice", "after_end", "during_wait", "calls")


def table(outcomes: list[Outcome]) -> str:
    """A Markdown table."""
    head = (
        "fault",
        "protocol",
        "when",
        "struck",
        "the shard",
        *(name.replace("_", " ") for name in COLUMNS),
        "spent",
        "possibly",
        "billed",
        "seconds",
    )
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for outcome in outcomes:
        row = (
            f"`{outcome.fault}`",
            outcome.protocol,
            f"`{outcome.spec.replace(outcome.fault, '')}`",
            outcome.struck,
            outcome.ended,
            *(getattr(outcome, name) for name in COLUMNS),
            *(f"{dollars:.4f}" for dollars in (outcome.spent_usd, outcome.possibly_usd, outcome.billed_usd)),
            f"{outcome.seconds:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--only", choices=sorted(FAULTS), metavar="FAULT", help="one fault")
    parser.add_argument("--jobs", type=int, default=4, help="shards at work at once")
    parser.add_argument("--keep", type=Path, help="file of results, one JSON line each, to go on from")
    parser.add_argument("--write", type=Path, help="Markdown file that gets the table")
    args = parser.parse_args()
    wanted = [(course, protocol) for course in courses() if args.only in (None, course.fault) for protocol in PROTOCOLS]
    found = _kept(args.keep, args.samples)
    failures = 0
    for name, outcome, error in _served([pair for pair in wanted if _name(*pair) not in found], args.samples, args.jobs):
        if outcome is None:
            failures += 1
            print(f"{name}: {error}", flush=True)
            continue
        found[name] = outcome
        print(f"{outcome.seconds:6.0f} s  {name}: {outcome.ended}  {outcome.problems}", flush=True)
        if args.keep:
            with args.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"samples": args.samples, **asdict(outcome)}) + "\n")
    outcomes = [found[name] for pair in wanted if (name := _name(*pair)) in found]
    wrong = failures + sum(bool(outcome.problems) for outcome in outcomes)
    print(table(outcomes))
    if args.write:
        args.write.write_text(_page(outcomes, args.samples), "utf-8")
    print(f"{len(wanted)} shards, {wrong} with problems", file=sys.stderr)
    return int(wrong > 0)


def _name(course: Course, protocol: str) -> str:
    return f"{course.spec}  {protocol}"


def _served(pairs: list[tuple[Course, str]], samples: int, jobs: int) -> Iterator[tuple[str, Outcome | None, str]]:
    """Each course's outcome as it comes; None and what was wrong where the shard did not end as it should."""
    context = multiprocessing.get_context("spawn")
    # What the client logs of each fault is not what is measured.
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=logging.disable, initargs=(logging.CRITICAL,)) as processes:
        futures = {processes.submit(_serve_anywhere, course, protocol, samples): (course, protocol) for course, protocol in pairs}
        for future in as_completed(futures):
            name, error = _name(*futures[future]), future.exception()
            if error is not None and not isinstance(error, AssertionError | MedkdError):
                raise error
            yield name, None if error else future.result(), str(error)


def _serve_anywhere(course: Course, protocol: str, samples: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return serve(course, protocol, samples, Path(folder))


def _kept(path: Path | None, samples: int) -> dict[str, Outcome]:
    """Earlier results of shards of that size, without those that had a problem."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    outcomes = [Outcome(**row) for row in rows if row.pop("samples") == samples]
    return {f"{outcome.spec}  {outcome.protocol}": outcome for outcome in outcomes if not outcome.problems}


def _page(outcomes: list[Outcome], samples: int) -> str:
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return f"""# The fault menu

Written by `python -m tests.benchmarks.fault_menu` on {time.strftime("%Y-%m-%d")}: {machine}, shared with other work;
{len(outcomes)} shards of {samples} samples, {CONCURRENCY} calls in flight, several at work at once.
Each row is one shard against the simulated teacher with one fault.

*when*: `:0.1` a tenth of the calls; `@12-` from the 12th call on; no mark: those calls alone. *lost*, *duplicated*: samples.
*paid twice*: completions billed for a call that had been answered in full before. *after end*, *during wait*: calls that
came after a terminal error or during an ordered wait, beyond {GRACE_SECONDS} s in which they may have been under way.
Money in dollars at one dollar a million tokens: *billed* is the teacher's book, *spent* and *possibly* are the shard's.

Shards that are short of samples, have a count above that is not 0, ended otherwise than the fault asks for, or whose bill lies
outside of their books: {sum(bool(outcome.problems) for outcome in outcomes)}.

{table(outcomes)}
"""


if __name__ == "__main__":
    sys.exit(main())
