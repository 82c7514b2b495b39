"""A run prefix as a store of whole files: a local folder, `memory://` or S3, with creates that are truly exclusive.

Paths are relative to the prefix and use `/`. What a reader sees is whole: writes appear complete or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from medkd.errors import ConfigError, MedkdError, RefusedError, UnreachableError
from medkd.telemetry import event

T = TypeVar("T")

# S3 answers one delete in some milliseconds; a run has thousands of files.
_DELETES_AT_ONCE = 16


@dataclass(frozen=True)
class StoredFile:
    """One file of a listing: path relative to the prefix, and its size."""

    path: str
    bytes: int


class Store:
    """Files below one prefix. Safe to use from several threads.

    Every method raises RefusedError where the store denies access and UnreachableError where it cannot be reached.
    """

    patience_seconds = 0.0
    """How long an unreachable store is tried again."""

    def __init__(self, url: str, filesystem: Any, root: str) -> None:
        self.url = url
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.options: dict[str, dict[str, Any]] = {}
        """What the file system was opened with, by its protocol: for input files that lie in the same kind of store."""
        self.stop = threading.Event()
        """Set it to end waiting for a store that cannot be reached."""

    def read(self, path: str) -> bytes:
        """The file's bytes; FileNotFoundError where there is none."""
        data: bytes = self._do("read", path, lambda: self.filesystem.cat_file(self.full_path(path)))
        return data

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Bytes of several files, fetched at once where the store can; FileNotFoundError where one is absent."""
        wanted = list(paths)

        def action() -> dict[str, bytes]:
            # Not `cat`, which takes brackets in a prefix for a glob.
            found = self.filesystem.cat_ranges([self.full_path(path) for path in wanted], None, None, on_error="return")
            for data in found:
                if isinstance(data, Exception):
                    raise data
            return dict(zip(wanted, found, strict=True))

        return self._do("read", self.url, action) if wanted else {}

    def read_present(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Bytes of those of the files that are there, fetched at once where the store can."""
        wanted = list(paths)

        def action() -> dict[str, bytes]:
            answers = self.filesystem.cat_ranges([self.full_path(path) for path in wanted], None, None, on_error="return")
            found = {path: data for path, data in zip(wanted, answers, strict=True) if not isinstance(data, FileNotFoundError)}
            for data in found.values():
                if isinstance(data, Exception):
                    raise data
            return found

        return self._do("read", self.url, action) if wanted else {}

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file, whole; False, and nothing changed, where the path exists already."""
        raise NotImplementedError

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, whole, whether or not the path exists."""
        self._do("write", path, lambda: self.filesystem.pipe_file(self.full_path(path), data))

    def exists(self, path: str) -> bool:
        """Whether there is a file at the path."""
        try:
            found = self._do("read", path, lambda: self.filesystem.info(self.full_path(path)))
        except FileNotFoundError:
            return False
        return bool(found["type"] == "file")

    def list_files(self, folder: str = "", *, unfinished: bool = False) -> list[StoredFile]:
        """All files below a folder, sorted by path; none where the folder does not exist.

        unfinished: also what writes that never ended have left, which nothing else ever reads.
        """
        start = self.full_path(folder).rstrip("/")
        try:
            found = self._do("list", folder or "/", lambda: self.filesystem.find(start, detail=True, withdirs=False))
        except FileNotFoundError:
            return []
        files = (StoredFile(self._relative(path), int(info["size"])) for path, info in found.items() if info["type"] == "file")
        return sorted((file for file in files if unfinished or not _is_temporary(file.path)), key=lambda file: file.path)

    def list_folders(self, folder: str = "") -> list[str]:
        """Names of the folders directly below a folder, sorted; one request, however much lies in them."""
        start = self.full_path(folder).rstrip("/")
        try:
            found = self._do("list", folder or "/", lambda: self.filesystem.ls(start, detail=True))
        except FileNotFoundError:
            return []
        return sorted(info["name"].rstrip("/").rsplit("/", 1)[-1] for info in found if info["type"] == "directory")

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        try:
            self._do("delete", path, lambda: self.filesystem.rm_file(self.full_path(path)))
        except FileNotFoundError:
            return

    def delete_many(self, paths: Iterable[str]) -> None:
        """Remove files, several at once; nothing happens where there is none."""
        with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:
            for _ in pool.map(self.delete, paths):
                pass

    def remove_empty_folders(self) -> None:
        """Remove what is left of folders without files, the prefix itself included; only a folder has such."""

    @property
    def keeps_versions(self) -> bool:
        """Whether the store keeps deleted files as older versions, as far as it says."""
        return False

    def sub(self, folder: str) -> Store:
        """The same store seen from a folder below the prefix."""
        store = type(self)(f"{self.url}/{folder}", self.filesystem, self.full_path(folder))
        store.stop, store.options = self.stop, self.options
        return store

    def download(self, folder: str, target: Path) -> None:
        """Copy all files below a folder to a local directory."""
        for file in self.list_files(folder):
            local = target / Path(file.path).relative_to(folder)
            local.parent.mkdir(parents=True, exist_ok=True)
            self.download_file(file.path, local)

    def upload(self, source: Path, folder: str) -> list[StoredFile]:
        """Copy a local directory's files below a folder, replacing what is there; returns them sorted by path."""
        stored = []
        for local in sorted(path for path in source.rglob("*") if path.is_file()):
            path = f"{folder}/{local.relative_to(source).as_posix()}"
            self.upload_file(local, path)
            stored.append(StoredFile(path, local.stat().st_size))
        return stored

    def download_file(self, path: str, local: Path) -> None:
        """Copy one file to a local path, whose folder is there, without holding it in memory."""
        self._do("read", path, lambda: self.filesystem.get_file(self.full_path(path), str(local)))

    def upload_file(self, local: Path, path: str) -> None:
        """Copy a local file into the store, replacing what is there, without holding it in memory."""
        self._do("write", path, lambda: self.filesystem.put_file(str(local), self.full_path(path)))

    def full_path(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self.root}/{path}" if path else self.root

    def _relative(self, full: str) -> str:
        return full[full.index(self.root) + len(self.root) :].lstrip("/")

    def _do(self, verb: str, path: str, action: Callable[[], T]) -> T:
        """Run one filesystem action, again for a while where the store cannot be reached; failures as the project's kinds."""
        deadline = time.monotonic() + self.patience_seconds
        delay = 0.2
        while True:
            try:
                return self._once(verb, path, action)
            except UnreachableError as error:
                if _exists_already(error) or time.monotonic() + delay > deadline or self.stop.wait(delay):
                    raise
                event("store unreachable, trying again", level=logging.WARNING, verb=verb, path=path, seconds=round(delay, 1))
                delay = min(30.0, 2 * delay)

    def _once(self, verb: str, path: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except FileNotFoundError as error:
            if _answered(error)[0] == "NoSuchBucket":
                raise ConfigError(f"store {self.url}: the bucket does not exist; create it or mend --prefix") from error
            if verb == "write":
                raise ConfigError(f"store {self.url}: nothing can be written there; choose another --prefix") from error
            raise
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise ConfigError(
                f"store {self.url}: a file and a folder are in each other's way; choose another --prefix"
            ) from error
        except PermissionError as error:
            raise RefusedError(f"store {self.url}: no permission to {verb} {path!r}; grant it to these credentials") from error
        except OSError as error:
            if error.errno == errno.EROFS or _answered(error)[1] in (405, 501):
                raise ConfigError(
                    f"store {self.url}: cannot {verb} {path!r} there at all ({_reason(error)}); use a store that can be written, "
                    "with conditional writes (S3 If-None-Match)"
                ) from error
            raise UnreachableError(f"store {self.url}: cannot {verb} {path!r} ({_reason(error)})") from error
        except Exception as error:
            if "credentials" in type(error).__name__.lower():
                raise ConfigError(f"store {self.url}: no credentials found ({type(error).__name__})") from error
            if type(error).__name__ == "ParamValidationError":
                raise ConfigError(f"store {self.url}: not a usable bucket or path; mend --prefix") from error
            if type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
                raise UnreachableError(f"store {self.url}: cannot {verb} {path!r} ({_reason(error)})") from error
            raise


class LocalStore(Store):
    """A folder. Files are fsynced under a temporary name, then linked (create) or renamed (replace) into place."""

    def create(self, path: str, data: bytes) -> bool:
        def action() -> bool:
            target, temporary = self._write_temporary(path, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise ConfigError(f"store {self.url}: this file system has no hard links; choose another --prefix") from error
                raise
            finally:
                temporary.unlink()
            _sync_folder(target.parent)
            return True

        return self._do("write", path, action)

    def replace(self, path: str, data: bytes) -> None:
        self._replace(path, data)

    def _replace(self, path: str, data: bytes | Path) -> None:
        def action() -> None:
            target, temporary = self._write_temporary(path, data)
            temporary.replace(target)

        self._do("write", path, action)

    def read(self, path: str) -> bytes:
        return self._do("read", path, lambda: Path(self.full_path(path)).read_bytes())

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes]:
        return {path: self.read(path) for path in paths}

    def read_present(self, paths: Iterable[str]) -> dict[str, bytes]:
        return {path: self.read(path) for path in paths if self.exists(path)}

    def _write_temporary(self, path: str, data: bytes | Path) -> tuple[Path, Path]:
        """The file's final place and, beside it, the durable temporary file that holds the bytes, or a copy of the file."""
        target = Path(self.full_path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("xb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            # A full disk must not fill up further with each try.
            temporary.unlink(missing_ok=True)
            raise
        return target, temporary

    def upload_file(self, local: Path, path: str) -> None:
        self._replace(path, local)

    def remove_empty_folders(self) -> None:
        folders = [Path(folder) for folder, _, _ in os.walk(self.root, topdown=False)]
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


class MemoryStore(Store):
    """`memory://`: lives and ends with this process; for tests and for trying things out."""

    _lock = threading.Lock()

    def create(self, path: str, data: bytes) -> bool:
        def action() -> bool:
            if self.filesystem.isfile(self.full_path(path)):
                return False
            self.filesystem.pipe_file(self.full_path(path), data)
            return True

        return self._do("write", path, action)

    def _once(self, verb: str, path: str, action: Callable[[], T]) -> T:
        with self._lock:
            return super()._once(verb, path, action)


class S3Store(Store):
    """S3 and what speaks its protocol. Create is a PUT with `If-None-Match: *`, which the server decides alone."""

    patience_seconds = 600.0

    def create(self, path: str, data: bytes) -> bool:
        bucket, _, key = self.full_path(path).partition("/")
        put = {"Bucket": bucket, "Key": key, "Body": data, "IfNoneMatch": "*"}
        try:
            self._do("write", path, lambda: self.filesystem.call_s3("put_object", **put))
        except UnreachableError as error:
            if _exists_already(error):
                return False
            raise
        return True

    @property
    def keeps_versions(self) -> bool:
        bucket = self.root.partition("/")[0]
        try:
            found = self._do("list", "/", lambda: self.filesystem.call_s3("get_bucket_versioning", Bucket=bucket))
        except (MedkdError, FileNotFoundError):
            # Few may ask this, and some servers do not know it.
            return False
        return found.get("Status") in ("Enabled", "Suspended")


def open_store(url: str, options: dict[str, Any] | None = None, *, read_only: bool = False) -> Store:
    """The store at a URL or local path; `options` go to fsspec's filesystem (endpoint, encryption, ...).

    read_only: also where nothing can be written, as in an archive (`zip::run.zip`). ConfigError where the URL's protocol is
    unknown or, unless nothing is to be written, cannot do exclusive creates.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **(options or {}))
    except (ValueError, ImportError) as error:
        raise ConfigError(f"store {url}: {error}") from None
    if isinstance(filesystem, LocalFileSystem):
        return LocalStore(url, filesystem, root)
    if isinstance(filesystem, MemoryFileSystem):
        return MemoryStore(url, filesystem, root)
    protocols = filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,)
    if "s3" in protocols:
        try:
            filesystem.connect()
        except Exception as error:
            raise ConfigError(f"store {url}: no S3 client with these settings ({error}); mend --storage-options") from None
        store = S3Store(url, filesystem, root)
        store.options = {"s3": options} if options else {}
        return store
    if read_only:
        return Store(url, filesystem, root)
    raise ConfigError(f"store {url}: {protocols[0]} has no exclusive create here; use a folder, memory:// or s3://")


def check_exclusive_create(store: Store) -> None:
    """Prove with a file of its own that the store refuses a second create; ConfigError where it does not."""
    path = f".probe-{uuid.uuid4().hex}"
    first = store.create(path, b"1")
    try:
        second = store.create(path, b"2")
        if not first or second or store.read(path) != b"1":
            raise ConfigError(
                f"store {store.url}: a second create of the same file was not refused, so two writers could spoil the run; "
                "use a store with conditional writes (S3 If-None-Match)"
            )
    finally:
        store.delete(path)


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _exists_already(error: BaseException) -> bool:
    """Whether an S3 server refused a create because the object exists. (409 only says that somebody is writing it.)"""
    return _answered(error)[0] in ("PreconditionFailed", "412")


def _answered(error: BaseException | None) -> tuple[str, int]:
    """S3's error code and HTTP status in a failure, or in what caused it; ("", 0) where no server answered."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", "")), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        error = error.__cause__ or error.__context__
    return "", 0


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
