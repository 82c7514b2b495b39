"""The data set card: a YAML header that Hugging Face reads, then provenance, statistics and limits in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medkd.quality.statistics import SPLITS
from medkd.quality.verdicts import verdict_line

_SHORT_SHOWN = 20
_REVIEWED = "People's records stand in `gold`; in the test split `output` of a corrected row stays the teacher's."


def data_set_card(statistics: Mapping[str, Any], verdict: Mapping[str, Any] | None = None) -> str:
    """The README of a data set with these statistics. verdict: on its bars, None before anybody judged."""
    splits = "\n".join(f"  - split: {split}\n    path: {split}-*.parquet" for split in SPLITS)
    counts = ", ".join(f"{count:,} {split}" for split, count in statistics["rows"].items())
    duplicates = statistics["duplicates"]
    balance = statistics["balance"]
    missing = len(statistics.get("missing_shards", ()))
    gap = f"- Missing: {missing:,} shards with {statistics['missing_samples']:,} planned samples.\n" if missing else ""
    runs = "".join(f"  - `{run['data_set_hash'][:12]}`: {run['rows']:,} rows\n" for run in statistics.get("runs", ()))
    united = f"- With the data sets of other runs:\n{runs}" if runs else ""
    flags = ", ".join(f"{path} in {count:,}" for path, count in statistics["flagged"].items())
    flagged = f"- Flagged in `unsupported`, the conversation does not say it: {flags}.\n" if flags else ""
    agreement = _agreement(statistics.get("agreement"), statistics.get("disputed", 0))
    found = review_words(statistics)
    reviewed = f"- Reviewed by people (column `review`): {found}. {_REVIEWED}\n" if found else ""
    let_in = statistics.get("rejects_admitted", 0)
    bars = f"- Bars: {verdict_line(verdict)}.\n" if verdict and verdict["checks"] else ""
    acceptance = "".join(_acceptance(by, statistics.get("acceptance", {}).get(by, {})) for by in ("teacher", "topic"))
    short = _short_cells(statistics.get("short_cells", ()))
    repeated = duplicates.get("exact", 0) + duplicates.get("near", 0)
    return f"""---
configs:
- config_name: default
  data_files:
{splits}
task_categories: [text-generation]
language: [en]
---
# Doctor-patient conversations and their structured records

{sum(statistics["rows"].values()):,} rows ({counts}). One row is `instruction`, `input` (the conversation) and `output` (the
record as JSON).

- Teacher: {", ".join(statistics["teachers"])}. The terms of the teacher's provider apply to these rows.
- References: {", ".join(f"{count:,} written by {who}" for who, count in statistics["by_reference"].items())}.
{united}- Left out: {repeated:,} duplicates, and {duplicates.get("leak", 0):,} rows that say what a row of a later split says; \
before that {statistics.get("rejected", 0):,} failed a check\
{f", of which people let {let_in:,} in" if let_in else ""}.
{gap}- Balance: {balance["cells"]:,} cells (topic x mood) with {balance["smallest"]:,} to {balance["largest"]:,} rows, \
{balance["mean"]:,} on average.
{flagged}{agreement}{reviewed}{bars}- Held-out topics (test only): {", ".join(statistics["held_out_topics"]) or "none"}.
- Data set hash: `{statistics["data_set_hash"]}`; plan hash: `{statistics["plan_hash"]}`.
{acceptance}{short}
Known limits: generated conversations are not real encounters, records are checked for support by the conversation and not by a
clinician, and agreement with the teacher is not accuracy. Not for clinical decisions.
"""


def _agreement(found: Mapping[str, Any] | None, disputed: int) -> str:
    """What second extractions say; empty where there is none."""
    if not found:
        return ""
    lowest = sorted(found["by_field"].items(), key=lambda item: (item[1], item[0]))[:3]
    fields = ", ".join(f"{path} {_percent(share)}" for path, share in lowest)
    return (
        f"- Extracted a second time: {found['judged']:,} rows, of which {found['agreed']:,} agree in every field "
        f"(`disagreement` names the others' fields); the least agreed on: {fields}. Left out as disputed: {disputed:,}.\n"
    )


def review_words(statistics: Mapping[str, Any]) -> str:
    """How many rows of a data set people confirmed, corrected, let in or found wrong; empty where they looked at none."""
    rows, wrong = statistics.get("reviewed", {}), statistics.get("judged_wrong", 0)
    if not (rows or wrong):
        return ""
    return (
        f"{rows.get('confirmed', 0):,} rows confirmed, {rows.get('corrected', 0):,} corrected, {rows.get('admitted', 0):,} "
        f"rejected ones admitted, {wrong:,} left out as wrong"
    )


def _acceptance(by: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Acceptance and cost of the rows that this run generated; empty where it generated none."""
    rows = "".join(
        f"| {_cell(name)} | {found['tries']:,} | {found['accepted']:,} | {_percent(found['acceptance'])} "
        f"| {_usd(found['cost_per_accepted_usd'])} |\n"
        for name, found in groups.items()
    )
    head = f"\n| {by} | tries | accepted | acceptance | cost of an accepted row |\n| --- | --- | --- | --- | --- |\n"
    return head + rows if rows else ""


def _short_cells(cells: Sequence[Mapping[str, Any]]) -> str:
    """Topics and moods with fewer rows than planned, the largest gaps first."""
    ordered = sorted(cells, key=lambda cell: (cell["accepted"] - cell["planned"], cell["topic"] or "", cell["mood"] or ""))
    rows = "".join(
        f"| {_cell(cell['topic'])} | {_cell(cell['mood'])} | {cell['planned']:,} | {cell['accepted']:,} "
        f"| {', '.join(f'{reason} {count:,}' for reason, count in cell['reasons'].items())} |\n"
        for cell in ordered[:_SHORT_SHOWN]
    )
    rest = len(ordered) - _SHORT_SHOWN
    more = f"\n{rest:,} more are in `statistics.json`.\n" if rest > 0 else ""
    head = "\n| short of the plan | mood | planned | accepted | reasons of rejected tries |\n| --- | --- | --- | --- | --- |\n"
    return head + rows + more if rows else ""


def _cell(name: str | None) -> str:
    """A name in a Markdown table."""
    return (name or "none").replace("|", "\\|")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _usd(amount: float | None) -> str:
    return "-" if amount is None else f"${amount:.6f}"
