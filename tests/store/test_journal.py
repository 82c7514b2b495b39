"""Group commits of a shard: what is durable replays, whoever else writes, and whatever a store does to a request."""

from __future__ import annotations

import gzip
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medkd.errors import ConfigError, FencedError, InputError, UnreachableError
from medkd.store import layout
from medkd.store.files import MemoryStore, Store, open_store
from medkd.store.journal import Journal, Replay, decode_segment, delete_segments, encode_segment, replay_shard

PLAN = "a" * 64
SHARD = 3

HEADER = {"format": 1, "writer": "w", "plan_hash": PLAN, "in_flight": [], "allowance_usd": 0.0}


def done(key: str, **more: Any) -> dict[str, Any]:
    return {"kind": "done", "key": key, **more}


class FaultyStore(MemoryStore):
    """A store whose next create meets a fault of the network.

    `retried`: it is written, the answer is lost, and the layer below tries again. `answer lost`: it is written, and the
    caller gets an error. `not sent`: nothing is written, and the caller gets an error.
    """

    fault = ""

    def create(self, path: str, data: bytes) -> bool:
        fault, self.fault = self.fault, ""
        if fault == "not sent":
            raise UnreachableError("no route to the store")
        created = super().create(path, data)
        if fault == "retried":
            return super().create(path, data)
        if fault == "answer lost":
            raise UnreachableError("connection reset")
        return created


def faulty_store() -> FaultyStore:
    memory = open_store(f"memory://{uuid.uuid4().hex}")
    return FaultyStore(memory.url, memory.filesystem, memory.root)


# --- any interleaving -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Op:
    """What one of the writers does next."""

    writer: int
    kind: str
    fault: str
    keys: list[str] = field(default_factory=list)
    in_flight: dict[str, float] = field(default_factory=dict)
    allowance_usd: float = 0.0
    money_usd: float = 0.0


_dollars = st.integers(0, 100).map(float)
_keys = st.sampled_from([f"call-{number}" for number in range(12)])
_ops = st.one_of(
    st.builds(
        Op,
        writer=st.integers(0, 2),
        kind=st.just("commit"),
        fault=st.sampled_from(["", "", "", "retried", "answer lost", "not sent"]),
        keys=st.lists(_keys, max_size=3),
        in_flight=st.dictionaries(_keys, _dollars, max_size=3),
        allowance_usd=_dollars,
        money_usd=_dollars,
    ),
    st.builds(
        Op, writer=st.integers(0, 2), kind=st.just("claim"), fault=st.sampled_from(["", "", "retried"]), allowance_usd=_dollars
    ),
)


class Model:
    """What the journal should say: the operations that were written, in their order."""

    def __init__(self) -> None:
        self.written: list[Op] = []
        self.owner: int | None = None
        self.lost: Op | None = None
        """The newest operation, where its writer was not told that it was written."""

    def replay(self) -> Replay:
        expected = Replay(num_segments=len(self.written))
        for before, op in zip([None, *self.written], self.written, strict=False):
            if op.kind == "claim" and before:
                expected.possibly_usd += sum(before.in_flight.values()) + before.allowance_usd
            for key in op.keys:
                expected.done.setdefault(key, done(key, by=op.writer))
            if op.money_usd:
                expected.money_usd += op.money_usd
                expected.chunks.append(f"budget/{op.money_usd}")
            expected.unanswered_usd = sum(op.in_flight.values()) + op.allowance_usd
        return expected


@given(st.lists(_ops, max_size=25))
@example([Op(0, "claim", ""), Op(0, "commit", "answer lost", ["call-1"]), Op(0, "commit", "", ["call-1"])])
def test_any_interleaving_of_writers_replays_to_what_unfenced_writers_made_durable(ops: list[Op]) -> None:
    store, model = faulty_store(), Model()
    journals = [Journal(store, SHARD, PLAN, f"writer-{number}") for number in range(3)]
    claimed: set[int] = set()
    for op in ops:
        journal = journals[op.writer]
        store.fault = op.fault
        if op.kind == "claim":
            model.written.append(op)
            model.owner, model.lost = op.writer, None
            assert journal.claim(op.allowance_usd) == model.replay()
            claimed.add(op.writer)
        elif op.writer in claimed:
            _commit(journal, op, model)
        store.fault = ""
        assert replay_shard(store, SHARD, PLAN) == model.replay()


def _commit(journal: Journal, op: Op, model: Model) -> None:
    entries = [done(key, by=op.writer) for key in op.keys]
    if op.money_usd:
        entries.append({"kind": "money", "path": f"budget/{op.money_usd}", "usd": op.money_usd})
    try:
        journal.commit(entries, op.in_flight, op.allowance_usd)
        acknowledged = True
    except UnreachableError:
        acknowledged = False
    except FencedError:
        assert op.writer != model.owner
        return
    if acknowledged:
        assert op.writer == model.owner, "the older of two writers is fenced at its next commit"
    if acknowledged and model.lost and _says_the_same(op, model.lost):
        # Taken for the one before, which it is as far as anybody can tell: the same bytes under the same number.
        model.lost = None
    elif op.writer == model.owner and (acknowledged or (op.fault == "answer lost" and _is_new(journal, op, model))):
        model.written.append(op)
        model.lost = None if acknowledged else op


def _says_the_same(one: Op, other: Op) -> bool:
    return repr(replace(one, fault="")) == repr(replace(other, fault=""))


def _is_new(journal: Journal, op: Op, model: Model) -> bool:
    """Whether a commit whose answer was lost has written: not where its number held an earlier one of that kind."""
    return len(journal.store.list_files(layout.journal_folder(SHARD))) > len(model.written)


def test_threads_that_take_a_shard_from_one_another_lose_nothing_that_was_acknowledged(store: Store) -> None:
    acknowledged: list[list[str]] = [[] for _ in range(4)]
    ready = threading.Barrier(4)

    def work(number: int) -> bool:
        journal = Journal(store, SHARD, PLAN, f"writer-{number}")
        ready.wait()
        journal.claim()
        for step in range(6):
            key = f"{number}-{step}"
            try:
                journal.commit([done(key)], {}, 0.0)
            except FencedError:
                return False
            acknowledged[number].append(key)
        return True

    with ThreadPoolExecutor(4) as threads:
        unfenced = list(threads.map(work, range(4)))
    replay = replay_shard(store, SHARD, PLAN)
    assert set(replay.done) == {key for keys in acknowledged for key in keys}
    assert any(unfenced), "the newest claimant is never fenced"


# --- one writer after another -----------------------------------------------------------------------------------------


def test_the_older_of_two_writers_is_fenced_and_stays_fenced(store: Store) -> None:
    old, new = Journal(store, SHARD, PLAN, "old"), Journal(store, SHARD, PLAN, "new")
    old.claim()
    old.commit([done("a")], {}, 0.0)
    assert set(new.claim().done) == {"a"}
    new.commit([done("b")], {}, 0.0)
    for _ in range(2):
        with pytest.raises(FencedError, match=r"shard 3: another process took it over \(new\)"):
            old.commit([done("c")], {}, 0.0)
    assert set(replay_shard(store, SHARD, PLAN).done) == {"a", "b"}


def test_a_writer_whose_successor_has_finished_the_shard_is_fenced_without_a_crash() -> None:
    class Deleting(FaultyStore):
        """Whoever finished deletes the segments between this writer's create and its look at what stands there."""

        def read(self, path: str) -> bytes:
            delete_segments(self, SHARD)
            return super().read(path)

    memory = faulty_store()
    old, new = (
        Journal(Deleting(memory.url, memory.filesystem, memory.root), SHARD, PLAN, "old"),
        Journal(memory, SHARD, PLAN, "new"),
    )
    old.claim()
    new.claim()
    new.close()
    with pytest.raises(FencedError, match="finished since"):
        old.commit([done("a")], {}, 0.0)


def test_a_retried_put_that_had_succeeded_is_recognised_as_ones_own() -> None:
    store = faulty_store()
    journal = Journal(store, SHARD, PLAN, "me")
    store.fault = "retried"
    journal.claim(allowance_usd=5.0)
    store.fault = "retried"
    journal.commit([done("a")], {}, 0.0)
    journal.commit([done("b")], {}, 0.0)
    replay = replay_shard(store, SHARD, PLAN)
    assert set(replay.done) == {"a", "b"}
    assert replay.num_segments == 3
    assert replay.possibly_usd == 0.0, "one claim, not two: nothing may have been sent before it"


def test_a_commit_that_seemed_to_fail_does_not_swallow_the_next_one() -> None:
    store = faulty_store()
    journal = Journal(store, SHARD, PLAN, "me")
    journal.claim()
    store.fault = "answer lost"
    with pytest.raises(UnreachableError):
        journal.commit([done("a")], {}, 0.0)
    journal.commit([done("b")], {}, 0.0)
    assert set(replay_shard(store, SHARD, PLAN).done) == {"a", "b"}


def test_a_restart_books_what_was_in_flight_and_the_allowance_and_nothing_else(store: Store) -> None:
    first = Journal(store, SHARD, PLAN, "first")
    assert first.claim(allowance_usd=1.0).possibly_usd == 0.0
    first.commit([], {"a": 10.0, "b": 20.0}, 2.0)
    first.commit([done("a"), done("b")], {"c": 40.0}, 4.0)
    assert Journal(store, SHARD, PLAN, "second").claim(allowance_usd=100.0).possibly_usd == 44.0
    assert Journal(store, SHARD, PLAN, "third").claim(allowance_usd=200.0).possibly_usd == 144.0
    assert replay_shard(store, SHARD, PLAN).possibly_usd == 144.0, "the newest writer may still answer for its own"


def test_a_writer_that_left_in_order_leaves_nothing_possibly_spent(store: Store) -> None:
    first = Journal(store, SHARD, PLAN, "first")
    first.claim(allowance_usd=9.0)
    first.commit([done("a")], {}, 0.0)
    assert Journal(store, SHARD, PLAN, "second").claim().possibly_usd == 0.0


def test_the_first_answer_of_a_call_counts(store: Store) -> None:
    journal = Journal(store, SHARD, PLAN, "me")
    journal.claim()
    journal.commit([done("a", text="first")], {}, 0.0)
    journal.commit([done("a", text="second")], {}, 0.0)
    assert replay_shard(store, SHARD, PLAN).done["a"]["text"] == "first"


def test_a_closed_journal_is_read_and_not_claimed(store: Store) -> None:
    journal = Journal(store, SHARD, PLAN, "me")
    journal.claim()
    journal.commit([{"kind": "money", "path": "budget/000000.json", "usd": 2.5}, done("a")], {}, 0.0)
    journal.close()
    replay = Journal(store, SHARD, PLAN, "next").claim()
    assert replay.closed
    assert (replay.money_usd, replay.chunks, set(replay.done)) == (2.5, ["budget/000000.json"], {"a"})
    assert len(store.list_files(layout.journal_folder(SHARD))) == 3


def test_deleted_segments_leave_an_empty_journal_and_other_shards_alone(store: Store) -> None:
    for shard in (SHARD, SHARD + 1):
        Journal(store, shard, PLAN, "me").claim()
    delete_segments(store, SHARD)
    delete_segments(store, SHARD)
    assert replay_shard(store, SHARD, PLAN) == Replay()
    assert replay_shard(store, SHARD + 1, PLAN).num_segments == 1


# --- what is not a journal --------------------------------------------------------------------------------------------


def test_the_journal_of_another_plan_is_a_configuration_error(store: Store) -> None:
    Journal(store, SHARD, "b" * 64, "me").claim()
    with pytest.raises(ConfigError, match=r"shard-00003/journal: belongs to plan bbbbbbbbbbbb, not aaaaaaaaaaaa"):
        Journal(store, SHARD, PLAN, "me").claim()


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_segment_is_an_input_error_naming_the_folder(store: Store, missing: int) -> None:
    journal = Journal(store, SHARD, PLAN, "me")
    journal.claim()
    journal.commit([done("a")], {}, 0.0)
    journal.commit([done("b")], {}, 0.0)
    store.delete(layout.journal_segment(SHARD, missing))
    with pytest.raises(InputError, match="shard-00003/journal: segments are missing or strange"):
        replay_shard(store, SHARD, PLAN)


def test_segments_that_vanish_while_they_are_read_are_an_input_error() -> None:
    class Vanishing(FaultyStore):
        def read_many(self, paths: Any) -> dict[str, bytes]:
            delete_segments(self, SHARD)
            return super().read_many(paths)

    memory = faulty_store()
    Journal(memory, SHARD, PLAN, "me").claim()
    with pytest.raises(InputError, match="shard-00003/journal: segments are missing"):
        replay_shard(Vanishing(memory.url, memory.filesystem, memory.root), SHARD, PLAN)


SEGMENT = encode_segment([HEADER, {"kind": "claim"}, *(done(f"call-{number}", text="x" * number) for number in range(50))])


@given(st.integers(0, len(SEGMENT) - 1))
def test_a_torn_segment_is_an_input_error_naming_its_path(length: int) -> None:
    with pytest.raises(InputError, match="journal/000007"):
        decode_segment(SEGMENT[:length], "journal/000007")


@given(st.integers(0, len(SEGMENT) - 1), st.integers(1, 255))
def test_a_spoiled_byte_is_an_input_error_or_makes_no_difference(place: int, change: int) -> None:
    spoiled = bytearray(SEGMENT)
    spoiled[place] ^= change
    try:
        lines = decode_segment(bytes(spoiled), "journal/000007")
    except InputError as error:
        assert "journal/000007" in str(error)
    else:
        assert lines == decode_segment(SEGMENT, "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"[]\n",
        b"5\n",
        b"null\n",
        b'"format"\n',
        b"{}\n",
        b'{"format": 1}\n',
        b"{\n",
        b"\xff\n",
        json.dumps(HEADER).encode() + b"\n5\n",
        json.dumps(HEADER).encode() + b'\n"kind"\n',
        json.dumps(HEADER).encode() + b"\n{}\n",
    ],
)
def test_what_is_gzipped_but_no_segment_is_an_input_error_naming_its_path(content: bytes) -> None:
    with pytest.raises(InputError, match="journal/000007: not a journal segment"):
        decode_segment(gzip.compress(content), "journal/000007")


@given(st.binary(max_size=200))
def test_garbage_is_an_input_error_naming_its_path(garbage: bytes) -> None:
    with pytest.raises(InputError, match="journal/000007"):
        decode_segment(garbage, "journal/000007")


def test_a_segment_of_a_later_format_says_which_this_medkd_reads() -> None:
    segment = encode_segment([{**HEADER, "format": 2}])
    with pytest.raises(InputError, match="journal/000007: got journal format 2, this medkd reads 1"):
        decode_segment(segment, "journal/000007")


# --- texts ------------------------------------------------------------------------------------------------------------

_any_text = st.text(st.characters(), max_size=50)
_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _any_text


@given(st.lists(st.dictionaries(_any_text, _values | st.lists(_values, max_size=3), max_size=5)))
@example([{"text": "lone \ud83d surrogate, NUL \x00, line separators \u2028\u2029\x85\x0b\x0c\r\n, \ufeff and 𝄞"}])
def test_any_text_survives_and_equal_lines_are_equal_bytes(entries: list[dict[str, Any]]) -> None:
    lines = [HEADER, *({**entry, "kind": "done"} for entry in entries)]
    segment = encode_segment(lines)
    assert decode_segment(segment, "") == lines
    assert encode_segment(json.loads(json.dumps(lines))) == segment
