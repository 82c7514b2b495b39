"""Shards that a run goes on without: `generate/gaps.json`, written by the driver within the allowance that values give.

Stage prepare takes no missing shard that this file does not name, and counts those it names in statistics and card.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from medkd.errors import InputError
from medkd.store import layout
from medkd.store.files import Store


def record(store: Store, shards: Collection[int]) -> None:
    """Say which shards the run goes on without; none of them: that all are there."""
    if shards:
        store.replace(layout.GAPS, json.dumps({"format": 1, "shards": sorted(shards)}).encode())
    else:
        store.delete(layout.GAPS)


def recorded(store: Store) -> frozenset[int]:
    """The shards that may be missing; InputError where the file is not of this form."""
    try:
        raw = json.loads(store.read(layout.GAPS))
        if raw["format"] != 1:
            raise InputError(f"{layout.GAPS}: got format {raw['format']!r}, this medkd reads 1")
        return frozenset(int(shard) for shard in raw["shards"])
    except FileNotFoundError:
        return frozenset()
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{layout.GAPS}: not a list of shards ({type(error).__name__})") from error
