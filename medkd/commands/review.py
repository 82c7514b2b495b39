"""The verb `review`: rows out to people as files, and what they say of them back in."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medkd.commands.numbers import positive, share
from medkd.commands.settings import open_prefix
from medkd.store.layout import SPLITS


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
    out.add_argument("--split", choices=SPLITS, help="only rows of this split, for example to get gold for the test")
    out.add_argument(
        "--name", dest="name_of_review", default="first", help="of the review; another draw from the same run needs another"
    )
    out.add_argument(
        "--show-outcome",
        action="store_true",
        help="say of each row whether it was accepted, why not, and its weight; else reviewers judge without knowing",
    )
