"""Which split a sample belongs to: a pure function of its conversation, so that a data set grows without leaks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Split = Literal["train", "validation", "test"]

_TRAIN_SHARE = 0.8
_VALIDATION_SHARE = 0.1


def split_of(conversation_sha256: str, topic: str, held_out_topics: Collection[str]) -> Split:
    """80% train, 10% validation, 10% test by the conversation's hash; held-out topics are only ever tested on.

    Equal conversations share a split whatever run, shard or day they come from.
    """
    if topic in held_out_topics:
        return "test"
    position = int(conversation_sha256[:16], 16) / 16**16
    if position < _TRAIN_SHARE:
        return "train"
    return "validation" if position < _TRAIN_SHARE + _VALIDATION_SHARE else "test"
