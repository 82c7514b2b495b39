"""Token rows as training reads them: lengths of all, and the rows themselves file by file, when they are needed. No torch.

students/<name>/tokens/index-train.parquet   length and answer_length of every row, in the order of the files
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from medkd.store import tables
from medkd.store.files import Store
from medkd.store.manifests import Manifest

Row = dict[str, Any]

# Beside the pool that a lane mixes from, see `order`. A file of 256 rows of 700 tokens takes some 1.4 MB.
FILES_IN_MEMORY = 64


class TokenRows(Sequence[Row]):
    """The rows of a split. Files are read, and verified against the manifest, when one of their rows is asked for."""

    def __init__(self, store: Store, tokens: Manifest, split: str, files_in_memory: int = FILES_IN_MEMORY) -> None:
        """tokens: the manifest of a student's tokens. InputError, here or later, where a file differs from it."""
        self._store = store
        self._files = [file for file in tokens.files if f"/{split}-" in file.path and "/index-" not in file.path]
        (index,) = (file for file in tokens.files if file.path.endswith(f"/index-{split}.parquet"))
        lengths = tables.read(store, [index])
        self.lengths = array("I", [row["length"] for row in lengths])
        """Of the input, answer included where it is part of that."""
        self.answers = array("I", [row["answer_length"] for row in lengths])
        self.sizes = array("I", [row["size"] for row in lengths])
        """What a row takes of a pass: T5's input and answer together."""
        self.files = [file.rows or 0 for file in self._files]
        """Rows of each file."""
        self._ends = list(accumulate(self.files))
        self._read: OrderedDict[int, list[Row]] = OrderedDict()
        self._in_memory = files_in_memory
        self.files_read: set[int] = set()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: Any) -> Any:
        """The row with its `input_ids` and `labels`."""
        file = bisect_right(self._ends, row)
        if file not in self._read:
            self._read[file] = [_compact(one) for one in tables.read(self._store, [self._files[file]])]
            self.files_read.add(file)
            if len(self._read) > self._in_memory:
                self._read.popitem(last=False)
        self._read.move_to_end(file)
        return self._read[file][row - self._ends[file] + self.files[file]]


def _compact(row: Row) -> Row:
    """Four bytes a token instead of some forty."""
    return {"input_ids": array("i", row["input_ids"]), "labels": array("i", row["labels"]), "length": row["length"]}
