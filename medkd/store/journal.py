"""The journal of a shard: group commits of paid calls, each a new file that only one writer can create.

One number sequence per shard. A segment is gzipped JSON lines: a header `{format, writer, plan_hash, in_flight, allowance_usd}`,
then entries by `kind`: `claim` (a writer takes the shard), `money` (a budget chunk), `done` (an answered call), `close`.
The newest claimant owns the shard; a writer that finds its next number taken by somebody else is fenced off.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medkd.errors import ConfigError, FencedError, InputError
from medkd.store import layout
from medkd.store.files import Store

FORMAT = 1
_SEGMENTS_AT_ONCE = 64

Entry = dict[str, Any]

_HEADER_KEYS = ("writer", "plan_hash", "in_flight", "allowance_usd")


@dataclass(kw_only=True)
class OpenBatch:
    """A provider's batch: begun under a tag, then made under an id, then ended with all its answers in the journal."""

    keys: tuple[str, ...]
    at: float
    """Unix time at which it was begun."""
    id: str = ""
    ended: bool = False
    spent: dict[str, list[float]] = field(default_factory=dict)
    """Attempts, cost and possible cost so far of calls that it did not bring to their end, by key."""


@dataclass(kw_only=True)
class Replay:
    """What a shard's segments say together; a pure function of them."""

    done: dict[str, Entry] = field(default_factory=dict)
    """Answered calls by key, the first answer where one stands twice."""
    money_usd: float = 0.0
    """Budget this shard took and journalled."""
    chunks: list[str] = field(default_factory=list)
    """Paths of those budget chunks."""
    possibly_usd: float = 0.0
    """What earlier writers may have spent without an answer in the journal."""
    unanswered_usd: float = 0.0
    """What the newest writer had in flight, or may have sent since; the next claim books it as possibly spent."""
    batches: dict[str, OpenBatch] = field(default_factory=dict)
    """Provider batches that were ever begun, by tag, in their order."""
    closed: bool = False
    num_segments: int = 0


class Journal:
    """The journal of one shard with this process as its writer. Not thread-safe: one thread commits."""

    def __init__(self, store: Store, shard: int, plan_hash: str, writer: str) -> None:
        self.store = store
        self.shard = shard
        self.plan_hash = plan_hash
        self.writer = writer
        self._next = 0

    def claim(self, allowance_usd: float = 0.0) -> Replay:
        """Take the shard over from whoever wrote before; returns what stands in the journal, the claim included.

        A closed journal is not claimed: there is nothing left to write. `allowance_usd` as in `commit`.
        """
        while True:
            replay = replay_shard(self.store, self.shard, self.plan_hash)
            if replay.closed:
                return replay
            self._next = replay.num_segments
            if self._put(self._segment([{"kind": "claim"}], {}, allowance_usd)) is None:
                replay.possibly_usd += replay.unanswered_usd
                replay.unanswered_usd = allowance_usd
                replay.num_segments += 1
                return replay

    def commit(self, entries: Sequence[Entry], in_flight: Mapping[str, float], allowance_usd: float) -> None:
        """Make entries durable as the next segment; FencedError where another writer owns the shard.

        in_flight: call key to reserved US dollars of what is sent and unanswered now. allowance_usd: the most that calls
        sent after this segment's snapshot may reserve until the next segment is durable.
        """
        segment = self._segment(entries, in_flight, allowance_usd)
        while (other := self._put(segment)) is not None:
            if other != self.writer:
                raise FencedError(f"shard {self.shard}: another process took it over ({other}); this one stops")
            # An earlier commit of ours that seemed to fail had been written after all.
            self._next += 1

    def close(self) -> None:
        """The last segment: every sample of the shard has its end."""
        self.commit([{"kind": "close"}], {}, 0.0)

    def _put(self, segment: bytes) -> str | None:
        """Create the next segment and count on; where the number is taken, return which writer's segment stands there."""
        path = layout.journal_segment(self.shard, self._next)
        if not self.store.create(path, segment):
            try:
                there = self.store.read(path)
            except FileNotFoundError:
                return "finished since"
            # A PUT that was retried below us may have succeeded the first time.
            if there != segment:
                return str(decode_segment(there, path)[0]["writer"])
        self._next += 1
        return None

    def _segment(self, entries: Iterable[Entry], in_flight: Mapping[str, float], allowance_usd: float) -> bytes:
        header = {
            "format": FORMAT,
            "writer": self.writer,
            "plan_hash": self.plan_hash,
            "in_flight": [{"key": key, "reserved_usd": usd} for key, usd in in_flight.items()],
            "allowance_usd": allowance_usd,
        }
        return encode_segment([header, *entries])


def encode_segment(lines: Iterable[Entry]) -> bytes:
    """Gzipped JSON lines; equal lines give equal bytes. ASCII-escaped, so that any text survives, lone surrogates too."""
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return gzip.compress(text.encode("ascii"), compresslevel=5, mtime=0)


def decode_segment(data: bytes, path: str) -> list[Entry]:
    """Header and entries of a segment; InputError naming the path where it is not one."""
    try:
        lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]
        header, *entries = lines
        if header["format"] != FORMAT:
            raise InputError(f"{path}: got journal format {header['format']!r}, this medkd reads {FORMAT}")
        if not (set(_HEADER_KEYS) <= set(header) and all(entry["kind"] for entry in entries)):
            raise KeyError
    except (OSError, EOFError, zlib.error, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: not a journal segment ({type(error).__name__})") from error
    return lines


def replay_shard(store: Store, shard: int, plan_hash: str, *, keep_replies: bool = True) -> Replay:
    """Read all segments of a shard; ConfigError where they belong to another plan, InputError where one is missing.

    A shard whose segments are being deleted, because another process has just finished it, is such an InputError as well.
    """
    files = store.list_files(layout.journal_folder(shard))
    expected = [layout.journal_segment(shard, number) for number in range(len(files))]
    incomplete = InputError(
        f"{store.url}/{layout.journal_folder(shard)}: segments are missing or strange; restore them or use a new prefix"
    )
    if [file.path for file in files] != expected:
        raise incomplete
    try:
        return replay(_decoded(store, expected), plan_hash, layout.journal_folder(shard), keep_replies=keep_replies)
    except FileNotFoundError:
        raise incomplete from None


def _decoded(store: Store, paths: Sequence[str]) -> Iterator[list[Entry]]:
    """Some at a time: all at once would be a second copy of whatever the shard has heard."""
    for start in range(0, len(paths), _SEGMENTS_AT_ONCE):
        for path, data in store.read_many(paths[start : start + _SEGMENTS_AT_ONCE]).items():
            yield decode_segment(data, path)


def stream_answers(store: Store, shard: int, plan_hash: str) -> Iterator[Entry]:
    """The `done` entries of a shard as they were written, a few segments in memory at a time, while it is open.

    ConfigError and InputError as `replay_shard`: the shard may have been finished meanwhile.
    """
    paths = [file.path for file in store.list_files(layout.journal_folder(shard))]
    for start in range(0, len(paths), _SEGMENTS_AT_ONCE):
        part = paths[start : start + _SEGMENTS_AT_ONCE]
        found = store.read_present(part)
        if len(found) < len(part) or part[0] != layout.journal_segment(shard, start):
            raise InputError(f"{store.url}/{layout.journal_folder(shard)}: segments are missing; the shard may just have ended")
        for path in part:
            header, *entries = decode_segment(found[path], path)
            if header["plan_hash"] != plan_hash:
                raise ConfigError(f"{path}: belongs to plan {header['plan_hash'][:12]}, not {plan_hash[:12]}")
            yield from (entry for entry in entries if entry["kind"] == "done")


def replay(segments: Iterable[Sequence[Entry]], plan_hash: str, shown: str = "journal", *, keep_replies: bool = True) -> Replay:
    """Fold decoded segments in their order into what they say together; without the replies where only the money counts."""
    state = Replay()
    for header, *entries in segments:
        state.num_segments += 1
        if header["plan_hash"] != plan_hash:
            raise ConfigError(f"{shown}: belongs to plan {header['plan_hash'][:12]}, not {plan_hash[:12]}; use another prefix")
        for entry in entries:
            if entry["kind"] == "claim":
                # The writer before is gone: what it had in flight, and may have sent since, nobody will answer for.
                state.possibly_usd += state.unanswered_usd
            elif entry["kind"] == "money":
                state.money_usd += entry["usd"]
                state.chunks.append(entry["path"])
            elif entry["kind"] == "done":
                if keep_replies:
                    state.done.setdefault(entry["key"], entry)
            elif entry["kind"] == "batch" and "keys" in entry:
                state.batches[entry["tag"]] = OpenBatch(keys=tuple(entry["keys"]), at=entry["at"])
            elif entry["kind"] == "batch":
                batch = state.batches[entry["tag"]]
                batch.id, batch.ended = entry.get("id", batch.id), entry.get("ended", batch.ended)
                batch.spent = entry.get("spent", batch.spent)
            elif entry["kind"] == "close":
                state.closed = True
        state.unanswered_usd = sum(call["reserved_usd"] for call in header["in_flight"]) + header["allowance_usd"]
    return state


def delete_segments(store: Store, shard: int) -> None:
    """Remove a finished shard's segments; the calls table keeps what they held."""
    store.delete_many(file.path for file in store.list_files(layout.journal_folder(shard)))
