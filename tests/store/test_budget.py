"""A run's money: chunks that only one writer can take, and the purse that lends them to calls."""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkd.errors import BudgetError, FencedError, StoppedError
from medkd.store import layout
from medkd.store.budget import Budget, Purse, Taken, TooDearError, chunk_usd, unjournalled
from medkd.store.files import MemoryStore, Store, StoredFile, open_store
from medkd.store.journal import Journal


def budget(store: Store, shard: int, *, total: float = 2.0, chunk: float = 0.1) -> Budget:
    return Budget(store=store, shard=shard, writer=f"writer-{shard}", budget_usd=total, chunk_usd=chunk)


def take_all(purse: Budget) -> list[Taken]:
    taken = []
    while chunk := purse.take():
        taken.append(chunk)
    return taken


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_many_writers_together_take_exactly_the_budget_and_no_chunk_twice(store: Store) -> None:
    ready = threading.Barrier(6)

    def work(shard: int) -> list[Taken]:
        ready.wait()
        return take_all(budget(store, shard))

    with ThreadPoolExecutor(6) as threads:
        taken = [chunk for chunks in threads.map(work, range(6)) for chunk in chunks]
    assert sorted(chunk.path for chunk in taken) == [layout.budget_chunk(number) for number in range(20)]
    assert sum(chunk.usd for chunk in taken) == pytest.approx(2.0)


@given(st.floats(0.001, 1000), st.integers(1, 5), st.floats(0.000001, 10))
@settings(max_examples=30)
def test_no_budget_and_no_cut_of_it_is_ever_exceeded(total: float, shards: int, dearest: float) -> None:
    chunk = chunk_usd(total, shards, dearest)
    assert chunk >= 4 * dearest
    store = open_store(f"memory://{uuid.uuid4().hex}")
    taken = take_all(budget(store, 0, total=total, chunk=chunk))
    assert sum(found.usd for found in taken) <= total * (1 + 1e-9)
    assert total - sum(found.usd for found in taken) < chunk * (1 + 1e-9), "what is left is less than a chunk"


def test_a_raised_budget_adds_chunks_and_keeps_those_taken(store: Store) -> None:
    first = take_all(budget(store, 0, total=0.3))
    assert len(first) == 3
    assert budget(store, 0, total=0.3).take() is None
    added = take_all(budget(store, 1, total=0.5))
    assert {chunk.path for chunk in added} == {layout.budget_chunk(3), layout.budget_chunk(4)}


def test_shards_that_begin_together_seldom_reach_for_the_same_chunk() -> None:
    class Counting(MemoryStore):
        creates = 0

        def create(self, path: str, data: bytes) -> bool:
            Counting.creates += 1
            return super().create(path, data)

        def list_files(self, folder: str = "") -> list[StoredFile]:
            # What each of them saw before any of the others took something.
            return []

    memory = open_store(f"memory://{uuid.uuid4().hex}")
    store, shards = Counting(memory.url, memory.filesystem, memory.root), 100
    for shard in range(shards):
        assert budget(store, shard, total=20.0 * shards, chunk=1.0).take()
    assert Counting.creates < 1.2 * shards, "one after the other from the lowest: 5,050"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(1, 8)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_no_raise_and_no_cut_of_the_budget_lets_more_out_than_the_largest_or_the_present_one(
    steps: list[tuple[int, int, int]],
) -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    out = 0
    for chunks, shard, tries in steps:
        before = out
        for _ in range(tries):
            out += budget(store, shard, total=chunks * 1.0, chunk=1.0).take() is not None
        assert out <= max(chunks, before)
        if tries > chunks and before <= chunks:
            assert out == chunks, "what the budget allows can be had"


def test_what_comes_back_under_a_budget_cut_below_what_was_taken_stays_in(store: Store) -> None:
    take_all(budget(store, 0, total=0.6))
    budget(store, 0).give_back(0.05)
    assert budget(store, 1, total=0.5).take() is None
    assert budget(store, 1, total=0.6).take() == Taken(path=layout.budget_return(0, taken=True), usd=0.05)


# --- returns ----------------------------------------------------------------------------------------------------------


def test_what_a_closed_shard_gives_back_is_taken_once_by_whoever_comes_first(store: Store) -> None:
    take_all(budget(store, 0))
    budget(store, 3).give_back(0.07)
    ready = threading.Barrier(5)

    def work(shard: int) -> list[Taken]:
        ready.wait()
        return take_all(budget(store, shard))

    with ThreadPoolExecutor(5) as threads:
        taken = [chunk for chunks in threads.map(work, range(5)) for chunk in chunks]
    assert taken == [Taken(path=layout.budget_return(3, taken=True), usd=0.07)]
    assert budget(store, 4).take() is None


def test_a_shard_gives_back_once_and_only_what_is_left(store: Store) -> None:
    take_all(budget(store, 0))
    for usd in (0.0, -0.01):
        budget(store, 1).give_back(usd)
    assert budget(store, 2).take() is None
    budget(store, 1).give_back(0.05)
    budget(store, 1).give_back(0.09)
    assert [chunk.usd for chunk in take_all(budget(store, 2))] == [0.05]


def test_a_return_that_was_taken_can_be_given_back_by_its_taker(store: Store) -> None:
    take_all(budget(store, 0))
    budget(store, 1).give_back(0.05)
    assert [chunk.usd for chunk in take_all(budget(store, 2))] == [0.05]
    budget(store, 2).give_back(0.03)
    assert [chunk.usd for chunk in take_all(budget(store, 3))] == [0.03]
    assert budget(store, 4).take() is None


def test_what_a_shard_took_and_did_not_journal_is_found_and_is_nobody_elses(store: Store) -> None:
    mine, other = budget(store, 1, total=0.5), budget(store, 2, total=0.5)
    journalled, left = mine.take(), mine.take()
    assert journalled and left
    others = take_all(other)
    assert unjournalled(store, 1, [journalled.path]) == [left]
    assert unjournalled(store, 1, [journalled.path, left.path]) == []
    assert sorted(unjournalled(store, 2, []), key=str) == sorted(others, key=str)
    other.give_back(0.2)
    assert len(unjournalled(store, 2, [])) == 3, "what was offered is not what was taken"
    returned = Taken(path=layout.budget_return(2, taken=True), usd=0.2)
    assert mine.take() == returned
    assert unjournalled(store, 1, [journalled.path, left.path]) == [returned]


def test_a_chunk_that_its_taker_did_not_journal_belongs_to_the_next_owner_and_the_taker_cannot_spend_it(store: Store) -> None:
    slow, new = (Journal(store, 1, "plan", writer) for writer in ("slow", "new"))
    slow.claim()
    chunk = budget(store, 1, total=0.1).take()
    assert chunk
    money = {"kind": "money", "path": chunk.path, "usd": chunk.usd}
    replay = new.claim()
    assert unjournalled(store, 1, replay.chunks) == [chunk]
    with pytest.raises(FencedError):
        slow.commit([money], {}, 0.0)
    new.commit([money], {}, 0.0)
    last = Journal(store, 1, "plan", "last").claim()
    assert (last.money_usd, last.chunks) == (chunk.usd, [chunk.path])
    assert unjournalled(store, 1, last.chunks) == []


# --- the purse --------------------------------------------------------------------------------------------------------


class WouldBlockError(Exception):
    """Raised by the purse's call for help, so that a test sees a wait instead of waiting."""


def _would_block() -> None:
    raise WouldBlockError


def purse(*, money: float, allowance: float = 1e9) -> Purse:
    made = Purse(threading.Event(), _would_block, allowance)
    made.add(money)
    return made


@dataclass
class Books:
    """What the purse must respect, kept apart from it."""

    usual: float
    money: float = 0.0
    gone: float = 0.0
    in_flight: dict[str, float] = field(default_factory=dict)
    reserved: list[float] = field(default_factory=list)
    segments: list[tuple[int, float]] = field(default_factory=list)
    """Where each segment that counts begins in `reserved`, and its allowance: the durable one, then the one being written."""

    def fits(self, usd: float) -> bool:
        return usd == 0 or (
            self.free >= usd and all(sum(self.reserved[start:]) + usd <= allowance for start, allowance in self.segments)
        )

    @property
    def free(self) -> float:
        return self.money - self.gone - sum(self.in_flight.values())


_cents = st.integers(0, 40).map(float)
_steps = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from("abcdef"), _cents),
    st.tuples(st.just("settle"), st.sampled_from("abcdef"), st.integers(0, 4)),
    st.tuples(st.just("add"), st.just(""), _cents),
    st.tuples(st.sampled_from(["snapshot", "durable", "commit failed"]), st.just(""), st.just(0)),
)


@given(st.integers(1, 100).map(float), st.sampled_from([0.0, 1000.0]), st.lists(_steps, max_size=60))
def test_reservations_never_exceed_the_money_nor_since_the_last_durable_segment_its_allowance(
    allowance: float, money: float, steps: list[tuple[str, str, float]]
) -> None:
    under_test, books = purse(money=money, allowance=allowance), Books(allowance, money, segments=[(0, allowance)])
    for kind, key, value in steps:
        if kind == "reserve":
            _reserve(under_test, books, key, value)
        elif kind == "settle" and key in books.in_flight:
            spent = books.in_flight.pop(key) * value / 4
            books.gone += spent
            under_test.settle(key, spent_usd=spent / 2, possibly_usd=spent / 2)
        elif kind == "add":
            books.money += value
            under_test.add(value)
        elif kind == "snapshot" and len(books.segments) == 1:
            in_flight, allowed = under_test.snapshot()
            assert in_flight == books.in_flight
            books.segments.append((len(books.reserved), allowed))
        elif kind == "durable" and len(books.segments) == 2:
            del books.segments[0]
            under_test.durable()
        elif kind == "commit failed":
            # Nobody knows whether it is durable: both count until the next one.
            del books.segments[2:]
        assert under_test.free_usd == pytest.approx(books.free)
        assert books.free >= -1e-9
        for start, allowed in books.segments:
            assert sum(books.reserved[start:]) <= allowed + 1e-9


def _reserve(under_test: Purse, books: Books, key: str, usd: float) -> None:
    try:
        under_test.reserve(key, usd)
    except WouldBlockError:
        assert not books.fits(usd), "nothing that fits may wait"
    else:
        assert books.fits(usd)
        books.in_flight[key] = books.in_flight.get(key, 0.0) + usd
        books.reserved.append(usd)


def test_what_is_sent_while_a_segment_is_written_counts_against_that_segment() -> None:
    under_test = purse(money=100.0, allowance=10.0)
    under_test.reserve("a", 6.0)
    under_test.snapshot()
    under_test.reserve("b", 4.0)
    under_test.durable()
    under_test.reserve("c", 6.0)
    with pytest.raises(WouldBlockError):
        under_test.reserve("d", 1.0)


def test_an_attempt_that_is_sent_again_reserves_beside_the_first_which_may_have_been_billed() -> None:
    under_test = purse(money=10.0)
    under_test.reserve("a", 4.0)
    under_test.reserve("a", 4.0)
    assert under_test.snapshot() == ({"a": 8.0}, 1e9)
    with pytest.raises(WouldBlockError):
        under_test.reserve("b", 4.0)
    under_test.settle("a", spent_usd=1.0, possibly_usd=4.0)
    assert (under_test.spent_usd, under_test.possibly_usd, under_test.free_usd) == (1.0, 4.0, 5.0)
    assert not under_test.has_reserved


def test_of_a_call_that_nobody_answers_only_what_was_sent_stays_in_flight() -> None:
    under_test = purse(money=10.0)
    under_test.reserve("never sent", 4.0)
    under_test.release("never sent", 4.0)
    under_test.reserve("sent once", 2.0)
    under_test.reserve("sent once", 3.0)
    under_test.release("sent once", 3.0)
    assert under_test.snapshot() == ({"sent once": 2.0}, 1e9)
    assert under_test.free_usd == 8.0
    under_test.release("not even reserved", 0.0)
    assert under_test.free_usd == 8.0


def test_a_free_teacher_needs_neither_money_nor_a_commit() -> None:
    under_test = purse(money=0.0, allowance=0.0)
    for number in range(100):
        under_test.reserve(str(number), 0.0)
    assert not under_test.has_reserved


def test_a_call_that_no_chunk_could_pay_is_not_sent_and_ends_nothing_else() -> None:
    made = Purse(threading.Event(), _would_block, 10.0, largest_call_usd=4.0)
    made.add(100.0)
    with pytest.raises(TooDearError, match=r"a call that may cost \$5\.0000, more than a budget chunk of \$4\.0000"):
        made.reserve("a", 5.0)
    made.reserve("a", 4.0)
    assert made.snapshot() == ({"a": 4.0}, 10.0)


class Waiter:
    """A thread that reserves, and how that ended."""

    def __init__(self, *, allowance: float = 1e9) -> None:
        self.stop = threading.Event()
        self.needed = threading.Event()
        self.purse = Purse(self.stop, self.needed.set, allowance)
        self.threads = ThreadPoolExecutor(8)

    def reserve(self, key: str, usd: float) -> None:
        self.outcome = self.threads.submit(self.purse.reserve, key, usd)

    def assert_it_waits(self) -> None:
        assert self.needed.wait(5), "whoever waits asks for help"
        assert not self.outcome.done()
        self.needed.clear()


def test_a_sender_without_money_waits_asks_and_wakes_when_there_is_some() -> None:
    waiter = Waiter()
    waiter.purse.add(1.0)
    waiter.reserve("a", 3.0)
    waiter.assert_it_waits()
    assert waiter.purse.lacks_money
    waiter.purse.add(1.0)
    waiter.assert_it_waits()
    waiter.purse.add(1.0)
    waiter.outcome.result(timeout=5)
    assert waiter.purse.free_usd == 0.0
    assert not waiter.purse.lacks_money


def test_a_sender_without_allowance_wakes_when_the_next_segment_is_durable() -> None:
    waiter = Waiter(allowance=4.0)
    waiter.purse.add(100.0)
    waiter.purse.reserve("a", 3.0)
    waiter.reserve("b", 2.0)
    waiter.assert_it_waits()
    assert waiter.purse.waits_for_commit
    assert not waiter.purse.lacks_money
    waiter.purse.snapshot()
    waiter.assert_it_waits()
    waiter.purse.durable()
    waiter.outcome.result(timeout=5)


def test_a_call_dearer_than_the_usual_allowance_gets_a_segment_that_allows_it() -> None:
    waiter = Waiter(allowance=4.0)
    waiter.purse.add(100.0)
    waiter.purse.reserve("a", 3.0)
    waiter.reserve("long", 9.0)
    waiter.assert_it_waits()
    assert waiter.purse.waits_for_commit
    assert waiter.purse.snapshot() == ({"a": 3.0}, 13.0)
    waiter.purse.durable()
    waiter.outcome.result(timeout=30)
    assert waiter.purse.snapshot() == ({"a": 3.0, "long": 9.0}, 4.0), "the next one is a usual one"


def test_several_who_wait_ask_for_what_all_of_them_lack() -> None:
    waiter = Waiter()
    waiter.purse.add(1.0)
    outcomes = [waiter.threads.submit(waiter.purse.reserve, str(number), 3.0) for number in range(4)]
    deadline = time.monotonic() + 60
    while waiter.purse.short_usd != 11.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waiter.purse.short_usd == 11.0
    waiter.purse.add(11.0)
    for outcome in outcomes:
        outcome.result(timeout=30)
    assert waiter.purse.short_usd == 0.0


def test_a_sender_wakes_when_another_call_gives_its_reservation_back() -> None:
    waiter = Waiter()
    waiter.purse.add(10.0)
    waiter.purse.reserve("a", 8.0)
    waiter.reserve("b", 5.0)
    waiter.assert_it_waits()
    waiter.purse.settle("a", spent_usd=1.0, possibly_usd=0.0)
    waiter.outcome.result(timeout=5)


def test_stop_ends_every_wait_at_once_and_lets_nobody_send() -> None:
    waiter = Waiter()
    began = time.monotonic()
    outcomes = [waiter.threads.submit(waiter.purse.reserve, str(number), 1.0) for number in range(8)]
    assert waiter.needed.wait(5)
    waiter.stop.set()
    for outcome in outcomes:
        with pytest.raises(StoppedError):
            outcome.result(timeout=5)
    assert time.monotonic() - began < 3
    waiter.purse.add(100.0)
    with pytest.raises(StoppedError):
        waiter.purse.reserve("late", 1.0)
    with pytest.raises(StoppedError):
        waiter.purse.reserve("late and free", 0.0)


def test_refuse_ends_every_wait_for_money_now_and_later_but_not_what_can_still_be_paid() -> None:
    waiter = Waiter()
    waiter.purse.add(2.0)
    outcomes = [waiter.threads.submit(waiter.purse.reserve, str(number), 3.0) for number in range(4)]
    assert waiter.needed.wait(5)
    waiter.purse.refuse(BudgetError("all of 2 is spent"))
    for outcome in outcomes:
        with pytest.raises(BudgetError, match="all of 2 is spent"):
            outcome.result(timeout=5)
    with pytest.raises(BudgetError, match="all of 2 is spent"):
        waiter.purse.reserve("later", 3.0)
    waiter.purse.reserve("cheap", 1.0)


def test_many_threads_together_never_hold_more_than_the_money() -> None:
    stop = threading.Event()
    under_test = Purse(stop, lambda: None, allowance_usd=1e9)
    under_test.add(5.0)
    lowest: list[float] = []

    def work(number: int) -> None:
        for step in range(25):
            under_test.reserve(f"{number}-{step}", 1.5)
            lowest.append(under_test.free_usd)
            under_test.settle(f"{number}-{step}", spent_usd=0.0, possibly_usd=0.0)

    with ThreadPoolExecutor(8) as threads:
        for outcome in [threads.submit(work, number) for number in range(8)]:
            outcome.result(timeout=30)
    assert min(lowest) >= 0
    assert under_test.free_usd == pytest.approx(5.0)
