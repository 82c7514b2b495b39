"""Whose record a row of the test split is scored against."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medkd.quality.score_sets import Reference
from medkd.stages.evaluate import reference_of
from medkd.store.gold_files import Gold

SAID, KNOWN, LABEL = {"age": "40"}, {"age": "41"}, {"age": "42"}


def row(**more: Any) -> dict[str, Any]:
    common = {"conversation_sha256": "aa", "source_id": None, "output": json.dumps(SAID), "gold": None, "reference": "teacher"}
    return {**common, **more}


@pytest.mark.parametrize(
    ("gold", "more", "expected"),
    [
        (Gold(), {}, Reference(SAID, "teacher")),
        (Gold(by_conversation={"aa": KNOWN}), {}, Reference(KNOWN, "expert")),
        (Gold(by_id={"visit-7": KNOWN}), {"source_id": "visit-7"}, Reference(KNOWN, "expert")),
        (Gold(by_id={"visit-8": KNOWN}), {"source_id": "visit-7"}, Reference(SAID, "teacher")),
        (Gold(by_conversation={"aa": KNOWN}), {"gold": json.dumps(LABEL)}, Reference(LABEL, "human")),
        (Gold(by_conversation={"aa": KNOWN}), {"reference": "human"}, Reference(SAID, "human")),
    ],
)
def test_the_best_that_is_known_of_a_row_is_its_reference(gold: Gold, more: dict[str, Any], expected: Reference) -> None:
    assert reference_of(row(**more), gold, "expert") == expected
