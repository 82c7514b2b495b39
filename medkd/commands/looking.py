"""The verbs that only look: `inspect` into a run, `diff` at two of them or at two students.

What `inspect` prints may be patient data, and goes to standard output alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import threading
from collections.abc import Iterable
from typing import Any

from medkd.commands.numbers import positive
from medkd.commands.settings import storage_options
from medkd.errors import UsageError
from medkd.store.files import Store, open_store

_LIMIT = 20


def inspect(args: argparse.Namespace, stop: threading.Event) -> int:
    """The run's overview, one sample, or a list of rows or rejects."""
    from medkd.quality import sample_sheet
    from medkd.stages import inspection
    from medkd.stages.opened_run import open_run

    if args.sample and (args.rejected or args.reason or args.topic):
        raise UsageError("--sample: shows one sample whole; leave --rejected, --reason and --topic away")
    _take_any_text()
    run = open_run(_open_reading(args.prefix, args, stop))
    if run.holds_patient_data and not args.json:
        print("patient data: this run was planned with --contains-phi yes", file=sys.stderr)
    width = shutil.get_terminal_size((120, 24)).columns
    if args.sample:
        found = inspection.sample(run, inspection.find(run, args.sample))
        schemas = {one["student"]: run.schema_of(one["student"]) for one in found["predictions"]}
        _print(json.dumps(found) if args.json else sample_sheet.sample_sheet(found, schemas, run.schema, width))
    elif args.rejected or args.reason:
        rows = inspection.rejected_tries(run, reason=args.reason, topic=args.topic)
        _print_list(rows, args, lambda few: sample_sheet.rejected_lines(few, width))
    elif args.topic:
        rows = inspection.accepted_rows(run, topic=args.topic)
        _print_list(rows, args, lambda few: sample_sheet.accepted_lines(few, width))
    else:
        shown = inspection.overview(run)
        _print(json.dumps(shown) if args.json else sample_sheet.overview_lines(shown, args.limit or _LIMIT))
        if not args.json:
            print("look further: --sample ID or index, --rejected [--reason R], --topic T, --limit N, --json")
    return 0


def diff(args: argparse.Namespace, stop: threading.Event) -> int:
    """Two runs or two students beside each other."""
    from medkd.quality import differences
    from medkd.stages import difference
    from medkd.stages.opened_run import open_run

    sides = []
    for prefix, student in _two_sides(args.runs, args.student):
        sides.append(difference.side_of(open_run(_open_reading(prefix, args, stop)), student, args.set))
    if sides[0] == sides[1] or sides[0].name == sides[1].name:
        raise UsageError(f"diff: got {sides[0].name} twice; name two runs, or two students as --student A,B")
    found = difference.difference(sides[0], sides[1], args.set)
    _print(json.dumps(found, ensure_ascii=False) if args.json else differences.all_lines(found))
    return 0


def _two_sides(runs: list[str], students: str | None) -> list[tuple[str, str | None]]:
    """Prefix and student of both sides: `PREFIX#STUDENT` each, or one or two prefixes with `--student A,B`."""
    sides: list[tuple[str, str | None]] = []
    for run in runs:
        prefix, _, student = run.rpartition("#")
        sides.append((prefix, student) if prefix and student else (run, None))
    named = students.split(",") if students else []
    if len(sides) > 2 or len(named) > 2 or not all(named):
        raise UsageError(f"diff: got {len(sides)} runs and students {students!r}, expected two of one of them")
    if named and any(student for _, student in sides):
        raise UsageError("--student: is said twice; leave it away where a run is named as PREFIX#STUDENT")
    if len(sides) == 1 and len(named) != 2:
        raise UsageError("diff: got one run; name a second one, or two students of it as --student A,B")
    if named:
        sides = [(sides[place % len(sides)][0], named[place % len(named)]) for place in range(2)]
    return sides


def _print(lines: str | Iterable[str]) -> None:
    for line in [lines] if isinstance(lines, str) else lines:
        print(line)


def _print_list(rows: Any, args: argparse.Namespace, shown: Any) -> None:
    """The first rows, each as soon as it was read, and whether there are more."""
    limit = args.limit or _LIMIT
    few = itertools.islice(rows, limit)
    count = 0

    def counted() -> Iterable[Any]:
        nonlocal count
        for row in few:
            count += 1
            yield row

    _print((json.dumps(row) for row in counted()) if args.json else shown(counted()))
    if count == 0 and not args.json:
        print("none")
    if next(iter(rows), None) is not None:
        print(f"there are more than {limit:,}: --limit", file=sys.stderr)


def _open_reading(url: str, args: argparse.Namespace, stop: threading.Event) -> Store:
    store = open_store(url, storage_options(args), read_only=True)
    store.stop = stop
    return store


def _take_any_text() -> None:
    """A terminal that cannot say a character gets its code instead of an error."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)
    parser.add_argument(
        "--prefix", required=True, help="where the run lies: a folder, s3://bucket/path, or any URL that fsspec opens"
    )
    parser.add_argument(
        "--sample", metavar="ID", help="one sample whole: its index, its id or the beginning of it, or its source id"
    )
    parser.add_argument("--rejected", action="store_true", help="list the rejected tries")
    parser.add_argument("--reason", help="list those that were rejected for this reason")
    parser.add_argument("--topic", help="list the accepted rows of this topic; with --rejected, its rejected tries")
    parser.add_argument("--limit", type=positive, help=f"rows of a list, or shards, at most; else {_LIMIT}")


def add_diff_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="prefix of a run, or PREFIX#STUDENT; two of them")
    parser.add_argument("--student", metavar="A,B", help="students of the two runs, or of the one; else each run's only one")
    parser.add_argument("--set", metavar="NAME", help="compare on this set of `evaluate --conversations`, not on the test rows")
    _add_place(parser)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--storage-options", help="JSON object for the file system, for example an endpoint")
    parser.add_argument("--json", action="store_true", help="the same as JSON, a list as JSON lines")
