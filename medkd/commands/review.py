"""The verb `review`: rows out to people as files, and what they say of them back in."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medkd.commands.numbers import positive, share
from medkd.commands.settings import file_options, open_prefix
from medkd.store import layout

_MOST_SHOWN = 20


def export(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.stages import review
    from medkd.stages.plan import load_plan

    store = open_prefix(args, stop)
    plan, _ = load_plan(store)
    phi = plan.source.contains_phi if plan.source else None
    asked = review.Asked(
        name=args.name_of_review, num_rows=args.rows, share_rejected=args.share_rejected, seed=args.seed, split=args.split
    )
    review.check_names(args.output)
    found = review.export(store, asked)
    counts = review.counts(found)
    for output in args.output:
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(review.form(found, plan.schema, output, open_label=args.show_outcome, contains_phi=phi))
        print(f"{output}: {len(found.cases):,} rows")
    print(
        f"review {found.identity}: {counts['accepted']:,} accepted and {counts['rejected']:,} rejected of "
        f"{sum(found.sizes.values()):,} rows in {len(found.sizes):,} strata (topic x accepted or rejected); "
        f"weights: {store.url}/{review.sample_path(found)}"
    )
    if phi:
        print("these files hold patient data: keep them where such data may lie", file=sys.stderr)
    return 0


def take_in(args: argparse.Namespace, stop: threading.Event) -> int:
    from medkd.quality.review_figures import shown
    from medkd.stages import reviewed
    from medkd.store import review_files, source_files

    store = open_prefix(args, stop)
    options = file_options(args)
    paths = source_files.expand(args.input, options, flag="--input", kinds=("csv", "jsonl"))
    rows = [row for path in paths for row in review_files.read(path, options)]
    done = reviewed.take_in(store, rows, reviewer=args.reviewer, adjudicator=args.adjudicator)
    print(f"{done.new:,} new judgements, {done.known:,} known before, {done.not_filled_in:,} rows not filled in")
    for name, found in done.figures.items():
        print("\n" + "\n".join(shown(name, found)))
        _print_disagreements(found["disagreements"])
    decisions = ", ".join(f"{count:,} {decision}" for decision, count in done.decisions.items())
    print(f"\nrows: {decisions or 'none judged'}")
    gold = f"{store.url}/{layout.REVIEW_GOLD}"
    print(f"gold: {gold}; to score on it: medkd evaluate --prefix {store.url} --gold {gold} --gold-source human --student ...")
    print(f"figures: {store.url}/{layout.REVIEW_FIGURES}")
    print(f"to apply it: medkd prepare --prefix {args.prefix} --review, or medkd run with --from prepare")
    return 0


def _print_disagreements(found: Sequence[Mapping[str, Any]]) -> None:
    for one in found[:_MOST_SHOWN]:
        verdicts = ", ".join(f"{who}: {verdict}" for who, verdict in one["verdicts"].items())
        print(f"  {one['sample_id']} {one['field']}: {verdicts}")
    if len(found) > _MOST_SHOWN:
        print(f"  and {len(found) - _MOST_SHOWN:,} more fields in the figures")


def add_flags(verb: Callable[..., argparse.ArgumentParser], add_shared: Callable[..., None], parts: Any) -> None:
    """The flags of `review export` and `review import`. add_shared: those of every verb that works on a run."""
    out = verb("export", export, "draw rows, rejected ones included, and write them as files that people fill in", parts)
    add_shared(out)
    out.add_argument(
        "--output",
        action="append",
        required=True,
        help="file to write, by its ending: .csv for spreadsheets, .jsonl, or .html, a form that needs no network and saves "
        "JSON lines; may be given again, all hold the same rows",
    )
    out.add_argument(
        "--rows", type=positive, default=100, help="rows to draw, from each topic x accepted or rejected at least one"
    )
    out.add_argument("--share-rejected", type=share, default=0.3, help="share of them that are rejected ones, from 0 to 1")
    out.add_argument("--seed", type=int, default=1, help="of the draw: equal seeds draw equal rows")
    out.add_argument("--split", choices=layout.SPLITS, help="only rows of this split, for example to get gold for the test")
    out.add_argument(
        "--name", dest="name_of_review", default="first", help="of the review; another draw from the same run needs another"
    )
    out.add_argument(
        "--show-outcome",
        action="store_true",
        help="say of each row whether it was accepted, why not, and its weight; else reviewers judge without knowing",
    )
    back = verb("import", take_in, "take in files that people filled in; print what they say of all rows, and write gold", parts)
    add_shared(back)
    back.add_argument(
        "--input",
        action="append",
        required=True,
        help="CSV or JSON lines file, folder or glob, at any URL that fsspec opens; may be given again. Rows that nobody filled "
        "in are passed over, and a file may come again, filled in further",
    )
    back.add_argument("--reviewer", help="whose the judgements are where a row does not say")
    back.add_argument("--adjudicator", help="reviewer whose word counts alone on the rows that he or she judged, now and later")
