"""Conversations that say the same twice: equal ones by hash, near ones by the share of five-word runs they have in common.

Five words, because conversations of one topic share phrases ("how long have you had") without sharing facts: one changed
fact breaks five runs, so that two conversations of 110 words may differ in two words at most to count as near at 0.85.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from medkd.samples import conversation_sha256, normalised

SHINGLE_WORDS = 5
THRESHOLD = 0.85

_PERMUTATIONS = 128
# Candidates are compared exactly afterwards, so the index may be wrong by finding too many and not by missing some.
_MISS_LITTLE = (0.1, 0.9)


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A sample to leave out, and the lower-numbered one that says the same.

    similarity: Jaccard similarity of their five-word runs; 1.0 where they are equal.
    """

    sample_id: str
    kept_sample_id: str
    reason: Literal["exact", "near"]
    similarity: float


def find_duplicates(rows: Iterable[tuple[str, str]], threshold: float = THRESHOLD) -> list[Duplicate]:
    """The samples to leave out of (sample_id, conversation) rows, sorted by id; independent of the rows' order.

    In the order of ids, a sample stays unless a sample that stayed is equal to it or shares `threshold` of its runs.
    """
    found, kept = _exact(sorted(rows))
    return sorted([*found, *_near(kept, threshold)], key=lambda duplicate: duplicate.sample_id)


def _exact(rows: list[tuple[str, str]]) -> tuple[list[Duplicate], list[tuple[str, str]]]:
    """Repeated conversations, and the rows without them."""
    first: dict[str, str] = {}
    found, kept = [], []
    for sample_id, text in rows:
        earlier = first.setdefault(conversation_sha256(text), sample_id)
        if earlier == sample_id:
            kept.append((sample_id, text))
        else:
            found.append(Duplicate(sample_id=sample_id, kept_sample_id=earlier, reason="exact", similarity=1.0))
    return found, kept


def _near(rows: list[tuple[str, str]], threshold: float) -> list[Duplicate]:
    from datasketch import MinHash, MinHashLSH  # here, because only stage prepare has it installed

    index: Any = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=_MISS_LITTLE)
    texts = dict(rows)
    found = []
    for sample_id, text in rows:
        runs = _runs(text)
        sketch = MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch([run.encode("utf-8", "surrogatepass") for run in runs])
        near = ((_similarity(runs, _runs(texts[other])), other) for other in sorted(index.query(sketch)))
        similarity, other = next((pair for pair in near if pair[0] >= threshold), (0.0, ""))
        if other:
            found.append(Duplicate(sample_id=sample_id, kept_sample_id=other, reason="near", similarity=round(similarity, 4)))
        else:
            index.insert(sample_id, sketch)
    return found


def _runs(text: str) -> frozenset[str]:
    words = normalised(text).split()
    last = max(len(words) - SHINGLE_WORDS, 0)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last + 1))


def _similarity(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
