"""The calls of a shard on their way: worker threads that only wait for the teacher, and what comes back from them.

Whatever else can answer an `Ask`, for many of them at once or hours later, takes the place of `Calls`: it says how many more it
has room for, takes them by `send`, and puts `Answered`, `Failed` or `Crashed` into the same queue.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from medkd.errors import MedkdError
from medkd.stages.sample_steps import JUDGE, Ask
from medkd.store.budget import Purse, TooDearError
from medkd.teacher.client import Answer, TeacherClient


@dataclass(frozen=True)
class Answered:
    """A call has its answer; it may be used once the journal holds it."""

    ask: Ask
    answer: Answer


@dataclass(frozen=True)
class Failed:
    """A call that nobody will answer; the shard has to stop."""

    ask: Ask
    error: MedkdError


@dataclass(frozen=True)
class Committed:
    """The segment under way is durable."""


@dataclass(frozen=True)
class CommitFailed:
    """The segment under way could not be written, or another writer owns the shard."""

    error: MedkdError


@dataclass(frozen=True)
class Crashed:
    """A thread met what nobody foresaw."""

    error: BaseException


@dataclass(frozen=True)
class Needed:
    """A sender waits for money or for the next commit."""


@dataclass(frozen=True)
class Note:
    """An entry for the journal; `durable` is set once it is."""

    entry: Mapping[str, Any]
    durable: threading.Event = field(default_factory=threading.Event)


Event = Answered | Failed | Committed | CommitFailed | Crashed | Needed | Note
Events = queue.SimpleQueue[Event]


UNSENT = Answer(outcome="reject", reason="too_dear", reply=None, attempts=0, cost_usd=0.0, possibly_usd=0.0, at="")


class Calls:
    """Asks the teacher, and another one for second extractions, from `concurrency` threads; every call sent comes back as one
    event."""

    def __init__(
        self,
        client: TeacherClient,
        purse: Purse,
        events: Events,
        concurrency: int,
        judge: TeacherClient | None = None,
    ) -> None:
        self._client = client
        self._judge = judge or client
        self._purse = purse
        self._events = events
        self._concurrency = concurrency
        self._asks: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._outstanding: set[str] = set()

    def start(self) -> None:
        for number in range(self._concurrency):
            # Daemons: a call that outlives the grace period must not keep the process.
            threading.Thread(target=self._work, name=f"call-{number}", daemon=True).start()

    @property
    def has_room(self) -> bool:
        """Whether another call would be sent at once."""
        return len(self._outstanding) < self._concurrency

    @property
    def outstanding(self) -> int:
        """Calls that have not come back."""
        return len(self._outstanding)

    def send(self, ask: Ask) -> None:
        self._outstanding.add(ask.key)
        self._asks.put(ask)

    def came_back(self, ask: Ask) -> None:
        """To be told of each event of a call by whoever reads the queue."""
        self._outstanding.discard(ask.key)

    def end(self) -> None:
        """Let the threads go; those in a call go when it is over."""
        for _ in range(self._concurrency):
            self._asks.put(None)

    def _work(self) -> None:
        while ask := self._asks.get():
            try:
                client = self._judge if ask.step == JUDGE else self._client
                reserve, release = partial(self._purse.reserve, ask.key), partial(self._purse.release, ask.key)
                self._events.put(Answered(ask, client.ask(ask.request, reserve, release)))
            except TooDearError:
                self._events.put(Answered(ask, UNSENT))
            except MedkdError as error:
                self._events.put(Failed(ask, error))
            except BaseException as error:
                self._events.put(Crashed(error))
