"""What a student's model folder says of its evaluation, and the refusal to hand on a student that is below a bar.

The verdict goes where the model goes: `evaluation.json` lies in the model's folder, and whoever copies the folder has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medkd.errors import BelowBarError, InputError
from medkd.quality.model_card import scores_section
from medkd.quality.verdicts import shortfalls
from medkd.store import layout
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.student.card import CARD_FILE, scored

_SHOWN = ("reference", "num_samples", "scores", "intervals", "bars")


def write_evaluation(store: Store, student_name: str, trained: Manifest, scores: Mapping[str, Any]) -> None:
    """Put verdict and scores into the model's folder: `evaluation.json`, and the end of the model card."""
    folder = f"{layout.student_folder(student_name)}/model"
    summary = {"format": 1, "student": student_name, **{key: scores[key] for key in _SHOWN}}
    store.replace(layout.student_evaluation(student_name), (json.dumps(summary, indent=1) + "\n").encode())
    card = f"{folder}/{CARD_FILE}"
    # A training whose manifest holds the hash of its card keeps the card that it has.
    if store.exists(card) and not any(file.path == card for file in trained.files):
        store.replace(card, scored(store.read(card).decode(), scores_section(scores)).encode())


def evaluation_in(store: Store, student_name: str) -> bytes | None:
    """The `evaluation.json` of a student; None where it has not been evaluated."""
    try:
        return store.read(layout.student_evaluation(student_name))
    except FileNotFoundError:
        return None


def check_handed_on(evaluation: bytes | None, where: str) -> None:
    """BelowBarError where the student misses a bar, with the way round it; nothing for one that was not evaluated."""
    if evaluation is None:
        return
    try:
        found = json.loads(evaluation)
        name, bars = found["student"], found["bars"]
        missed = "" if bars["passed"] else shortfalls(bars)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: not readable as the evaluation of a student; evaluate it again") from error
    if missed:
        raise BelowBarError(
            f"{where}: student {name} is below its bar: {missed} (lower end of the interval). "
            "Train a better one or lower the bar in bars.evaluate and evaluate again; to use it as it is, pass --below-bar"
        )
