"""The weights of a hub model, copied once into the run's store by stage plan; later stages need no hub. No torch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from medkd.config import StudentConfig
from medkd.errors import ConfigError, MedkdError, RefusedError, StoppedError, UnreachableError
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import FileEntry, Manifest
from medkd.telemetry import event

T = TypeVar("T")

PATIENCE_SECONDS = 600.0
"""How long a hub that does not answer is asked again."""

# Configuration and tokenizer, whatever the family calls its files.
_TEXTS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_LICENSES = ("LICENSE", "README.md", "USE_POLICY.md")


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it; the hash is known of large files only."""

    bytes: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A model as the hub has it now."""

    name: str
    commit: str
    """What its revision means at this moment."""
    files: dict[str, HubFile]
    """Those that a student needs."""
    endpoint: str | None = None


def is_hub_model(student: StudentConfig) -> bool:
    """Whether a student's weights come from the hub, and not from sizes, a folder or a store."""
    name = student.model_name
    return student.architecture is None and "://" not in name and not name.startswith(("/", ".")) and not Path(name).is_dir()


def copied_weights(store: Store, student: StudentConfig) -> Manifest | None:
    """The manifest of the run's own copy of a student's weights; None before stage plan has made it whole."""
    return manifests.read(store, _manifest_path(student))


def find_on_hub(student: StudentConfig, stop: threading.Event, endpoint: str | None = None) -> HubModel:
    """What the hub has of a student's model, asked with the token and through the proxy of the environment. endpoint: the hub's
    URL, HF_ENDPOINT where None.

    RefusedError where the hub wants a token or an acceptance of terms, ConfigError where it knows no such model or revision or
    may not be asked, UnreachableError where it does not answer for ten minutes.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint)
    found = _ask(student, stop, lambda: api.model_info(student.model_name, revision=student.revision, files_metadata=True))
    listed = {one.rfilename: HubFile(int(one.size or 0), one.lfs.sha256 if one.lfs else None) for one in found.siblings or []}
    files = {name: listed[name] for name in needed_files(listed)}
    if not any(_is_weights(name) for name in files):
        raise ConfigError(f"model_name: {student.model_name!r} on the hub has no weights for PyTorch; choose another model")
    return HubModel(name=student.model_name, commit=str(found.sha), files=files, endpoint=endpoint)


def copy_weights(store: Store, student: StudentConfig, model: HubModel, scratch: Path, stop: threading.Event) -> Manifest:
    """Copy a model's files into the store, one at a time through `scratch`, the manifest last. Large files that an earlier try
    copied are not fetched again."""
    folder = layout.weights_folder(student.model_name, student.revision)
    there = {file.path: file.bytes for file in store.list_files(folder)}
    entries: list[FileEntry] = []
    for number, (name, file) in enumerate(sorted(model.files.items()), 1):
        if stop.is_set():
            raise StoppedError("stopped while copying weights; run it again to go on")
        path = f"{folder}/{name}"
        if file.sha256 and there.get(path) == file.bytes:
            entries.append(FileEntry(path, file.bytes, file.sha256))
            continue
        event("copying", model=model.name, file=name, megabytes=round(file.bytes / 1e6, 1), of=f"{number}/{len(model.files)}")
        local = _fetch(student, model, name, scratch, stop)
        entries.append(manifests.entry_of_file(path, local))
        store.upload_file(local, path)
        local.unlink()
    manifest = Manifest(
        stage="weights",
        plan_hash="",
        config_hash="",
        files=tuple(entries),
        counts={"commit": model.commit, "bytes": sum(entry.bytes for entry in entries)},
    )
    manifests.write(store, _manifest_path(student), manifest)
    event("weights copied", model=model.name, commit=model.commit, files=len(entries), bytes=manifest.counts["bytes"])
    return manifest


def _fetch(student: StudentConfig, model: HubModel, name: str, scratch: Path, stop: threading.Event) -> Path:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=model.endpoint)
    return Path(_ask(student, stop, lambda: api.hf_hub_download(model.name, name, revision=model.commit, local_dir=scratch)))


def fetch_copy(store: Store, manifest: Manifest, student: StudentConfig, target: Path) -> None:
    """Download the run's own copy into a folder; InputError where a file differs from its manifest."""
    folder = layout.weights_folder(student.model_name, student.revision)
    for entry in manifest.files:
        local = target / Path(entry.path).relative_to(folder)
        local.parent.mkdir(parents=True, exist_ok=True)
        store.download_file(entry.path, local)
        manifests.check_file(entry, local)


def needed_files(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that a student is made of: configuration, tokenizer, and its weights in one form only."""
    top = sorted(name for name in names if "/" not in name)
    weights: list[str] = []
    for pattern in ("model*.safetensors", "*.safetensors", "pytorch_model*.bin"):
        weights = weights or [name for name in top if fnmatchcase(name, pattern)]
    indexes = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
    unused = indexes if not weights else [name for name in indexes if Path(weights[0]).suffix not in name]
    texts = [name for name in top if name.endswith(_TEXTS) and name not in unused]
    return sorted({*texts, *(name for name in top if name in _LICENSES), *weights})


def _is_weights(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _manifest_path(student: StudentConfig) -> str:
    return f"{layout.weights_folder(student.model_name, student.revision)}/manifest.json"


def _ask(student: StudentConfig, stop: threading.Event, action: Callable[[], T]) -> T:
    """Ask the hub, again for a while where it does not answer."""
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
    while True:
        try:
            return action()
        except Exception as error:
            failure = _failure(student, error)
            if failure is None:
                raise
            if not isinstance(failure, UnreachableError) or time.monotonic() + pause > deadline:
                raise failure from error
            event("hub does not answer, trying again", level=logging.WARNING, reason=type(error).__name__, seconds=pause)
            if stop.wait(pause):
                raise StoppedError("stopped while the hub did not answer; run it again to go on") from error
            pause = min(30.0, 2 * pause)


def _failure(student: StudentConfig, error: Exception) -> MedkdError | None:
    """The hub's refusal in one line; None for what is no answer of a hub."""
    from huggingface_hub import errors

    name = student.model_name
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(f"revision: got {student.revision!r}, which {name!r} on the hub does not have")
    status = _status(error)
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return RefusedError(
            f"model_name: the hub does not give {name!r} to us ({status or 'gated'}); is the name right, are its terms accepted "
            "by the token's account, and is the token there (Secret in hub.existingSecret, or HF_TOKEN)?"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ConfigError(
            f"model_name: {name!r} is not in the run's store, and the hub may not be asked (HF_HUB_OFFLINE); name a folder or a "
            "store URI of the model"
        )
    if isinstance(error, (errors.RepositoryNotFoundError, errors.EntryNotFoundError)) and not _unreachable(error):
        return ConfigError(f"model_name: the hub knows no {name!r}; give its hub id, a local folder or a store URI")
    if isinstance(error, errors.HFValidationError):
        return ConfigError(f"model_name: got {name!r}, expected a hub id, a local folder or a store URI")
    if isinstance(error, OSError) or _unreachable(error) or status >= 500 or status == 429:
        return UnreachableError(
            f"model_name: the hub did not give {name!r} for ten minutes ({type(error).__name__} {status or ''})"
        )
    return None


def _unreachable(error: Exception) -> bool:
    """Whether nobody answered: the hub's client hides that in an error about its empty cache."""
    from huggingface_hub import errors

    return isinstance(error, errors.LocalEntryNotFoundError) or type(error).__module__.startswith(
        ("httpx", "httpcore", "requests")
    )


def _status(error: Exception) -> int:
    response: Any = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or 0)
