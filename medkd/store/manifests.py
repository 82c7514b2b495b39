"""Manifests: what a stage says it finished. Written last; whoever reads the files checks them against it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medkd.errors import ConfigError, InputError
from medkd.samples import sha256_hex
from medkd.store.files import Store

FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """One file as it was written. rows is None for files that are not tables."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What one stage (and shard) finished.

    inputs: files read, path to SHA-256. counts: named row counts. money: US dollars by kind (spent, possibly, ...).
    """

    stage: str
    plan_hash: str
    config_hash: str
    files: tuple[FileEntry, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    money: dict[str, float] = field(default_factory=dict)
    shard: int | None = None
    format: int = FORMAT


def entry(path: str, data: bytes, rows: int | None = None) -> FileEntry:
    """The manifest entry of a file with these bytes."""
    return FileEntry(path, len(data), sha256_hex(data), rows)


def entry_of_file(path: str, local: Path) -> FileEntry:
    """The manifest entry of a local file's content, which need not fit into memory."""
    return FileEntry(path, local.stat().st_size, _file_sha256(local))


def check_file(file: FileEntry, local: Path) -> None:
    """InputError where a local copy of a manifest's file is not what the manifest says."""
    if local.stat().st_size != file.bytes or _file_sha256(local) != file.sha256:
        raise InputError(f"{file.path}: differs from its manifest ({local.stat().st_size} bytes, expected {file.bytes})")


def write(store: Store, path: str, manifest: Manifest) -> None:
    """Publish a manifest: from here on the stage counts as finished."""
    store.replace(path, (json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n").encode())


def read(store: Store, path: str) -> Manifest | None:
    """The manifest at the path, or None where the stage has not finished; InputError where it is not one."""
    try:
        data = store.read(path)
    except FileNotFoundError:
        return None
    return parse(path, data)


def read_present(store: Store, paths: Iterable[str]) -> dict[str, Manifest]:
    """Those of the manifests that are there, by path; InputError where one is none."""
    return {path: parse(path, data) for path, data in store.read_present(paths).items()}


def parse(path: str, data: bytes) -> Manifest:
    """The manifest in the bytes of the file at the path; InputError where they are not one."""
    try:
        raw = json.loads(data)
        if raw.get("format") != FORMAT:
            raise InputError(f"{path}: got format {raw.get('format')!r}, this medkd reads {FORMAT}")
        return Manifest(**{**raw, "files": tuple(FileEntry(**file) for file in raw["files"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a manifest ({type(error).__name__})") from error


def require(store: Store, path: str, stage: str) -> Manifest:
    """The manifest of a predecessor; ConfigError naming the stage to run first where it is missing."""
    manifest = read(store, path)
    if manifest is None:
        raise ConfigError(f"{store.url}/{path}: missing; stage {stage} has not finished, run it first")
    return manifest


def read_verified(store: Store, file: FileEntry) -> bytes:
    """The bytes of a manifest's file; InputError where they are not what the manifest says."""
    try:
        data = store.read(file.path)
    except FileNotFoundError:
        raise InputError(f"{store.url}/{file.path}: named by its manifest but missing") from None
    if len(data) != file.bytes or sha256_hex(data) != file.sha256:
        raise InputError(f"{store.url}/{file.path}: differs from its manifest ({len(data)} bytes, expected {file.bytes})")
    return data


def missing_files(store: Store, manifest: Manifest, folder: str) -> list[str]:
    """Paths that the manifest names but one listing of `folder` lacks or shows with another size."""
    sizes = {file.path: file.bytes for file in store.list_files(folder)}
    return [file.path for file in manifest.files if file.path.startswith(folder) and sizes.get(file.path) != file.bytes]


def _file_sha256(local: Path) -> str:
    with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
