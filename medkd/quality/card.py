"""The data set card: a YAML header that Hugging Face reads, then provenance, statistics and limits in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medkd.quality.statistics import SPLITS


def data_set_card(statistics: Mapping[str, Any]) -> str:
    """The README of a data set with these statistics."""
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
before that {statistics.get("rejected", 0):,} failed a check.
{gap}- Balance: {balance["cells"]:,} cells (topic x mood) with {balance["smallest"]:,} to {balance["largest"]:,} rows, \
{balance["mean"]:,} on average.
{flagged}- Held-out topics (test only): {", ".join(statistics["held_out_topics"]) or "none"}.
- Data set hash: `{statistics["data_set_hash"]}`; plan hash: `{statistics["plan_hash"]}`.

Known limits: generated conversations are not real encounters, records are checked for support by the conversation and not by a
clinician, and agreement with the teacher is not accuracy. Not for clinical decisions.
"""
