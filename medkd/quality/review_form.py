"""The form in which people review rows: one HTML page that needs no network and saves what was filled in as JSON lines.

The page allows itself its own script and style by their hashes, and no request at all. Conversations and records are untrusted
text: they come as JSON and are shown as text only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medkd.quality.judgements import VERDICTS
from medkd.records import NOT_PROVIDED, RecordSchema


def review_form(
    identity: str,
    rows: Sequence[Mapping[str, Any]],
    evidence: Sequence[Mapping[str, Sequence[int]]],
    schema: RecordSchema,
    *,
    contains_phi: bool | None,
) -> str:
    """The page for a review's rows. evidence: of each row, the turns (from 1) that support a field."""
    script, style = f"{_part('review_rows.js')}\n{_part('review_form.js')}", _part("review_form.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # A record's fields keep their order.
    environment.policies["json.dumps_kwargs"] = {}
    wanted = ("sample_id", "turns", "record", "raw_text", "outcome")
    data = {
        "review": identity,
        "fields": [asdict(field) for field in schema.fields],
        "leaves": schema.leaves(),
        "expected": {path: rule.domain for path, rule in schema.rules.items()},
        "empty": schema.empty(),
        "not_provided": NOT_PROVIDED,
        "verdicts": VERDICTS,
        "rows": [
            {**{name: row[name] for name in wanted if name in row}, "evidence": found}
            for row, found in zip(rows, evidence, strict=True)
        ],
    }
    return environment.from_string(_part("review_form.html.j2")).render(
        identity=identity,
        num_rows=len(rows),
        contains_phi=contains_phi,
        data=data,
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _part(name: str) -> str:
    return (resources.files("medkd.quality") / name).read_text(encoding="utf-8").strip()
