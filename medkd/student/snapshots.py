"""What DeepSpeed would write as a checkpoint, kept in host memory, so that training goes on while it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from torch import Tensor

_RANK_OF_FILE = re.compile(r"zero_pp_rank_(\d+)")


def take_snapshot(engine: Any, scratch: Path, rank: int) -> dict[str, Any]:
    """This rank's part of a checkpoint by file name, copied to host memory. Called on all ranks together.

    Files that belong to no rank are rank 0's.
    """
    usual, memory = engine.checkpoint_engine, _Memory()
    engine.checkpoint_engine = memory
    try:
        engine.save_checkpoint(str(scratch), tag="snapshot", save_latest=False)
    finally:
        engine.checkpoint_engine = usual
    return {name: state for name, state in memory.files.items() if _rank_of(name) == rank}


def _rank_of(name: str) -> int:
    match = _RANK_OF_FILE.search(name)
    return int(match[1]) if match else 0


class _Memory(TorchCheckpointEngine):  # type: ignore[misc]
    """Takes what is to be written and keeps a copy: the originals change with the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Any] = {}

    def save(self, state_dict: Any, path: str) -> None:
        self.files[Path(path).name] = copied(state_dict)

    def preserves_storage_sharing(self) -> bool:
        return False  # every tensor is copied alone, so DeepSpeed need not do that first


def copied(value: Any) -> Any:
    """The same structure with every tensor copied to host memory, without what else lies in its storage."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return type(value)((key, copied(item)) for key, item in value.items()) if _plain(value) else value
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    return value


def _plain(value: Mapping[Any, Any]) -> bool:
    """Whether the mapping's type is made from pairs."""
    return type(value).__name__ in ("dict", "OrderedDict")
