"""The best weights seen so far: measured on the validation split while training, stored in the background by rank 0.

Under a student's folder:
    students/<name>/checkpoints/best/step-000200.safetensors   a model's weights, whole
    students/<name>/checkpoints/best.json                      which of them, and how good; written last
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Literal

from safetensors import safe_open
from safetensors.torch import save_file

from medkd.store.files import Store
from medkd.student.background import Background
from medkd.student.checkpoints import checkpoints_folder
from medkd.student.export import gather_weights
from medkd.student.measured import Measured
from medkd.student.ranks import Ranks
from medkd.student.snapshots import copied
from medkd.telemetry import event


class BestWeights:
    """Keeps the weights of the best step. Methods are called on all ranks together."""

    def __init__(self, store: Store, student_name: str, ranks: Ranks, by: Literal["field_f1", "loss", "last"]) -> None:
        """by: what makes a step the best; `last` keeps none."""
        self._store, self._ranks, self._by = store, ranks, by
        self._folder = checkpoints_folder(student_name)
        self._local = ranks.folder / "best"
        self._background = Background()
        self.best = None if by == "last" else self._stored()

    def offer(self, engine: Any, measured: Measured) -> None:
        """Store the engine's weights, if they are better than any before."""
        if self._by == "last" or (self.best and self._rank_of(measured) <= self._rank_of(self.best)):
            return
        weights = gather_weights(engine)
        self.best = measured
        if self._ranks.rank == 0 and weights is not None:
            self._background.wait()
            aliases = _aliases(weights)
            snapshot = copied({name: tensor for name, tensor in weights.items() if name not in aliases})
            self._background.start(lambda: self._store_weights(snapshot, aliases, measured))

    def weights(self, last_step: int) -> dict[str, Any] | None:
        """The best weights on rank 0; None on the others, and where the last step's are the best or nothing was measured."""
        if self._ranks.rank != 0 or self.best is None or self.best.step == last_step:
            return None
        self._background.wait()
        path = self._local / _name(self.best.step)
        if not path.exists():
            self._store.download(f"{self._folder}/best", self._local)
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dictionary
            return weights | {alias: weights[name] for alias, name in (file.metadata() or {}).items()}

    def finish(self) -> None:
        """Wait until the best weights are stored."""
        self._background.wait()

    def _store_weights(self, weights: dict[str, Any], aliases: dict[str, str], measured: Measured) -> None:
        self._local.mkdir(parents=True, exist_ok=True)
        for old in self._local.iterdir():
            old.unlink()
        save_file(weights, self._local / _name(measured.step), metadata=aliases)
        (stored,) = self._store.upload(self._local, f"{self._folder}/best")
        self._store.replace(f"{self._folder}/best.json", (json.dumps(asdict(measured)) + "\n").encode())
        for file in self._store.list_files(f"{self._folder}/best"):
            if file.path != stored.path:
                self._store.delete(file.path)
        event("best weights stored", step=measured.step, loss=measured.loss, field_f1=measured.field_f1)

    def _stored(self) -> Measured | None:
        try:
            return Measured(**json.loads(self._store.read(f"{self._folder}/best.json")))
        except FileNotFoundError:
            return None

    def _rank_of(self, measured: Measured) -> tuple[float, float]:
        """Greater is better; of equal scores the lower loss."""
        score = measured.field_f1 if self._by == "field_f1" and measured.field_f1 is not None else 0.0
        return score, -measured.loss


def _name(step: int) -> str:
    return f"step-{step:06d}.safetensors"


def _aliases(weights: dict[str, Any]) -> dict[str, str]:
    """Second names of tied weights, each with the name under which the tensor is kept."""
    kept: dict[Any, str] = {}
    return {name: first for name, tensor in weights.items() if (first := kept.setdefault(tensor.data_ptr(), name)) != name}
