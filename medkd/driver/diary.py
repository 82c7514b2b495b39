"""What happened to the run, each thing noted once and published as an Event, also across drivers."""

from __future__ import annotations

import time
from collections import deque

from medkd.cluster.board import NUM_NOTES, Note
from medkd.cluster.publish import Publisher
from medkd.cluster.states import JobState
from medkd.errors import MedkdError


class Diary:
    """The newest notes of a run."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._notes: deque[Note] = deque(maxlen=NUM_NOTES)

    @property
    def notes(self) -> tuple[Note, ...]:
        return tuple(self._notes)

    def remember(self) -> None:
        """Take over what an earlier driver of this run noted."""
        try:
            earlier = self._publisher.earlier()
        except MedkdError:
            return
        if earlier:
            self._notes.extend(earlier.notes)

    def say(self, state: JobState, reason: str, text: str, *, warning: bool = False) -> None:
        """Note and publish what happened to a stage's present Job, unless that was said before."""
        if any((note.uid, note.reason, note.text) == (state.uid, reason, text) for note in self._notes):
            return
        self._notes.append(Note(at=time.time(), stage=state.stage, reason=reason, text=text, uid=state.uid))
        self._publisher.event(state.stage, state.uid, reason, text, warning=warning)
