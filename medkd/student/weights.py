"""Where a student's pretrained files are: in the run's store, a local folder, another store, or on the hub. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from medkd.config import StudentConfig
from medkd.errors import ConfigError
from medkd.store import layout
from medkd.store.files import Store, open_store
from medkd.student.hub import copied_weights, fetch_copy

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """What `from_pretrained` is given: a local folder (revision None), or a hub id and its revision."""

    name: str
    revision: str | None

    def load(self, loader: Callable[..., T], **options: Any) -> T:
        """`loader(name, ...)`, for example `AutoConfig.from_pretrained`; ConfigError where it cannot be loaded."""
        try:
            return loader(self.name, **({"revision": self.revision} if self.revision else {}), **options)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"model_name: cannot load {self.name!r} ({reason}); give a hub id that this machine may fetch, "
                "a local folder or a store URI of a Hugging Face model"
            ) from error


def find_configuration(store: Store, student: StudentConfig, scratch: Path) -> Source:
    """As `find_source`, for the model's configuration alone: of the gigabytes in a store one small file is fetched."""
    name = "config.json"
    try:
        if copied_weights(store, student):
            found = store.read(f"{layout.weights_folder(student.model_name, student.revision)}/{name}")
        elif "://" in student.model_name:
            found = open_store(student.model_name).read(name)
        else:
            return find_source(store, student, scratch)
    except FileNotFoundError:
        raise ConfigError(f"model_name: {student.model_name!r} has no {name}; give the folder of a Hugging Face model") from None
    (scratch / name).write_bytes(found)
    return Source(str(scratch), None)


def find_source(store: Store, student: StudentConfig, scratch: Path) -> Source:
    """The student's pretrained files, copied below `scratch` where they are in a store. The run's own copy comes first."""
    target = scratch / "weights"
    if target.exists():
        return Source(str(target), None)
    copied = copied_weights(store, student)
    if copied:
        fetch_copy(store, copied, student, target)
        return Source(str(target), None)
    if "://" in student.model_name:
        open_store(student.model_name).download("", target)
        return Source(str(target), None)
    if Path(student.model_name).is_dir():
        return Source(student.model_name, None)
    return Source(student.model_name, student.revision)
