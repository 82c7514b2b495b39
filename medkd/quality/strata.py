"""A sample drawn by strata (topic x accepted or rejected), so that few rows say something about each of them.

Rows are chosen by a hash of seed and id: the same whatever order, store or shards they come from.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from medkd.samples import sha256_hex

ACCEPTED, REJECTED = "accepted", "rejected"


@dataclass(frozen=True, order=True)
class Stratum:
    """Rows of one topic that ended in one way."""

    status: str
    """`accepted` or `rejected`."""
    topic: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The ids that were drawn, in an order that tells nothing of their strata."""

    ids: tuple[str, ...]
    sizes: Mapping[Stratum, int]
    """Rows of each stratum that could have been drawn."""
    sampled: Mapping[Stratum, int]
    """Rows of each stratum that were."""


def draw(rows: Iterable[tuple[Stratum, str]], num_rows: int, share_rejected: float, seed: int) -> Drawn:
    """At most `num_rows` of the rows (stratum and id), each stratum's in proportion to its size and never none.

    share_rejected: how many of them are rejected ones, as far as there are as many. Memory grows with strata times `num_rows`,
    not with the rows. ValueError where there are more strata than rows to draw.
    """
    sizes: Counter[Stratum] = Counter()
    lowest: dict[Stratum, list[tuple[int, str]]] = {}
    for stratum, identity in rows:
        sizes[stratum] += 1
        kept = lowest.setdefault(stratum, [])
        # The heap's first entry is the highest hash that is kept.
        entry = (-int(sha256_hex(f"{seed}:{identity}")[:16], 16), identity)
        if len(kept) < num_rows:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)
    sampled = _allocated(sizes, num_rows, share_rejected)
    chosen = [entry for stratum, kept in lowest.items() for entry in sorted(kept, reverse=True)[: sampled[stratum]]]
    return Drawn(ids=tuple(identity for _, identity in sorted(chosen, reverse=True)), sizes=sizes, sampled=sampled)


def _allocated(sizes: Mapping[Stratum, int], num_rows: int, share_rejected: float) -> dict[Stratum, int]:
    if len(sizes) > num_rows:
        raise ValueError(f"got {num_rows}, expected at least {len(sizes)}, one for each topic x accepted or rejected")
    by_status = {
        status: {stratum: size for stratum, size in sizes.items() if stratum.status == status} for status in (ACCEPTED, REJECTED)
    }
    total = {status: sum(found.values()) for status, found in by_status.items()}
    # Either kind gets at least one row of each of its strata, and what the other one has no rows for.
    rejected = max(round(num_rows * share_rejected), num_rows - total[ACCEPTED], len(by_status[REJECTED]))
    rejected = min(rejected, total[REJECTED], num_rows - len(by_status[ACCEPTED]))
    accepted = min(num_rows - rejected, total[ACCEPTED])
    return {**_spread(by_status[ACCEPTED], accepted), **_spread(by_status[REJECTED], rejected)}


def _spread(sizes: Mapping[Stratum, int], num_rows: int) -> dict[Stratum, int]:
    """So many rows over the strata in proportion to their sizes (Webster's method of highest averages), one each first."""
    given = dict.fromkeys(sizes, 1)
    queue = [(-size / 1.5, stratum) for stratum, size in sizes.items() if size > 1]
    heapq.heapify(queue)
    for _ in range(num_rows - len(given)):
        _, stratum = heapq.heappop(queue)
        given[stratum] += 1
        if given[stratum] < sizes[stratum]:
            heapq.heappush(queue, (-sizes[stratum] / (given[stratum] + 0.5), stratum))
    return given
