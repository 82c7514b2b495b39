"""Input files at any path or URL that fsspec knows: found by path, folder or glob, opened as plain bytes, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from medkd.errors import InputError, UnreachableError

KINDS = ("csv", "jsonl", "parquet")
WITH_TEXTS = (*KINDS, "txt")
"""Also files that are one conversation each."""
COMPRESSIONS = ("gz", "bz2", "xz", "zst")
# What is asked of a remote store at once: a part of a file costs little more than itself.
_READ_BYTES = 1 << 20

Options = Mapping[str, Mapping[str, Any]]
"""Settings of fsspec's file systems by protocol, for example those of the run's own store."""


def expand(patterns: list[str], options: Options, *, flag: str = "--conversations", kinds: tuple[str, ...] = KINDS) -> list[str]:
    """The files of those kinds behind paths, folders and globs, sorted by path; InputError naming a pattern that has none."""
    paths: set[str] = set()
    for pattern in patterns:
        chain = pattern.partition("::")[2]
        try:
            filesystem, root = _filesystem(pattern, options)
            is_glob = any(sign in root for sign in "*?[") and not filesystem.exists(root)
            matches = filesystem.glob(root) if is_glob else [root]
            if filesystem.isdir(root):
                matches = filesystem.find(root)
            for match in matches:
                if kind_of(match) in kinds:
                    paths.add(filesystem.unstrip_protocol(match) + (f"::{chain}" if chain else ""))
        except (ValueError, OSError, ImportError) as error:
            raise InputError(f"{flag} {pattern}: {error}") from None
        if not matches:
            raise InputError(f"{flag} {pattern}: no such file")
        if not any(kind_of(match) in kinds for match in matches):
            compressed = "all but Parquet" if "parquet" in kinds else "each"
            raise InputError(
                f"{flag} {pattern}: expected files ending in .{', .'.join(kinds[:-1])} or .{kinds[-1]}, "
                f"{compressed} also with .{', .'.join(COMPRESSIONS)} behind"
            )
    return sorted(path.removeprefix("file://") for path in paths)


def kind_of(path: str) -> str | None:
    """csv, jsonl, parquet or txt, by the name without its compression; None for any other file."""
    name = PurePosixPath(path.partition("::")[0].lower())
    if name.suffix[1:] in COMPRESSIONS and name.with_suffix("").suffix != ".parquet":
        name = name.with_suffix("")
    return name.suffix[1:] if name.suffix[1:] in WITH_TEXTS else None


@contextmanager
def opened(path: str, options: Options) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed, read as they are asked for.

    InputError where it cannot be read or is torn, UnreachableError where its store did not answer; also while it is read.
    """
    import pyarrow as pa  # slow to load, and most shards read no source

    remote = False
    try:
        filesystem, root = _filesystem(path, options)
        remote = not isinstance(filesystem, LocalFileSystem)
        with filesystem.open(root, "rb", block_size=_READ_BYTES) as raw, _decompressed(path, raw) as file:
            yield file
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    except (EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be decompressed ({type(error).__name__}); restore the file") from None
    except OSError as error:
        kind = UnreachableError if remote else InputError
        raise kind(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp"):
            raise UnreachableError(f"{path}: cannot be read ({type(error).__name__})") from None
        raise


def _filesystem(path: str, options: Options) -> tuple[Any, str]:
    wanted = {protocol: dict(values) for protocol, values in options.items() if f"{protocol}://" in path}
    return cast(tuple[Any, str], fsspec.core.url_to_fs(path, **wanted))


def _decompressed(path: str, raw: Any) -> Any:
    suffix = PurePosixPath(path.partition("::")[0].lower()).suffix
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if suffix == ".bz2":
        return bz2.BZ2File(raw)
    if suffix == ".xz":
        return lzma.LZMAFile(raw)
    if suffix == ".zst":
        return _ZstdFile(raw)
    return raw


class _ZstdFile(io.RawIOBase):
    """Zstandard as the standard library reads the others: what a seek jumps over is decompressed and dropped."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._streams: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        import pyarrow as pa

        # Those before are kept: they would close the file that all of them read.
        self._streams.append(pa.CompressedInputStream(pa.PythonFile(self._raw, "r"), "zstd"))
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._streams[-1].read(size)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from elsewhere than the start")
        if offset < self._position:
            self._raw.seek(0)
            self._begin()
        while self._position < offset and self.read(min(offset - self._position, _READ_BYTES)):
            pass
        return self._position
