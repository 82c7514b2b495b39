"""The one part of a model card that is written after training: its scores, for stage evaluate to fill in. Imports no torch."""

from __future__ import annotations

CARD_FILE = "README.md"
_HEADING = "\n## Scores\n\n"


def unscored(card: str) -> str:
    """The card of a student that has not been evaluated."""
    return scored(card, "Not evaluated yet.\n")


def scored(card: str, scores: str) -> str:
    """The card with these scores at its end, in place of those that it had."""
    return card.partition(_HEADING)[0] + _HEADING + scores
