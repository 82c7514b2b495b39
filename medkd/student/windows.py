"""Windows: a conversation that is longer than a student reads at once, as parts of whole turns that overlap by some turns.

A turn that is longer than a window alone is cut between words, its label before every piece. Which windows a conversation has
depends on nothing but its text, the student's tokenizer and its limits: training, extraction and evaluation cut alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medkd.samples import Window, speaker_label, turn_lines

Size = Callable[[str], int]
"""Tokens of a text as the student reads it, with all that stands around it."""


class NoRoomError(Exception):
    """A window has no room for a single letter beside what stands around it."""


_WORD = re.compile(r"\S+\s*|\s+")


def whole(conversation: str) -> Window:
    """The conversation as its only window."""
    return Window(text=conversation, turns=tuple(range(len(turn_lines(conversation)))))


def cut(conversation: str, size: Size, room: int, overlap: int) -> list[Window]:
    """The windows of at most `room` tokens, in order: every turn is in one of them, and each has something of its own.

    overlap: turns (or pieces of one) of the window before that a window begins with, fewer where they would fill half of it.
    NoRoomError where a single letter with what stands around it is more than `room`.
    """
    if size(conversation) <= room:
        return [whole(conversation)]
    half = (room + size("")) // 2
    pieces = [piece for turn, text in enumerate(turn_lines(conversation)) for piece in _pieces(turn, text, size, room, half)]
    return list(_windows(pieces, size, room, half, overlap))


@dataclass(frozen=True)
class _Piece:
    """A turn or a part of it. joins: it continues the piece before it, as nothing says who speaks."""

    turn: int
    text: str
    joins: bool = False


def _windows(pieces: list[_Piece], size: Size, room: int, half: int, overlap: int) -> Iterator[Window]:
    def text(start: int, end: int) -> str:
        return "\n".join(piece.text for piece in pieces[start:end])

    start = read = 0
    while read < len(pieces):
        start = max(read - overlap, start + 1) if read else 0
        while start < read and (size(text(start, read)) > half or size(text(start, read + 1)) > room):
            start += 1
        end = _last(read + 1, len(pieces), lambda end, start=start: size(text(start, end)) <= room)  # type: ignore[misc]
        counted = [piece.turn for place, piece in enumerate(pieces[start:end]) if not (piece.joins and place)]
        yield Window(text=text(start, end), turns=tuple(counted))
        read = end


def _last(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The greatest number up to `high` that fits, by steps that double and are then halved: `low` does."""
    step = 1
    while low + step <= high and fits(low + step):
        low, step = low + step, 2 * step
    while step := step // 2:
        if low + step <= high and fits(low + step):
            low += step
    return low


def _pieces(turn: int, text: str, size: Size, room: int, half: int) -> Iterator[_Piece]:
    """The turn where a window holds it; else pieces of at most half a window, so that two neighbours are read together."""
    if size(text) <= room:
        yield _Piece(turn, text)
        return
    label = speaker_label(text)
    for place, part in enumerate(_halved(text[len(label) :], lambda part: size(label + part) <= half)):
        yield _Piece(turn, label + part.rstrip(), joins=place > 0 and not label)


def _halved(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """The text in pieces that fit, cut between words where there are several."""
    if fits(text):
        yield text
        return
    words = _WORD.findall(text)
    words = words if len(words) > 1 else list(text)
    if len(words) < 2:
        raise NoRoomError
    middle = len(words) // 2
    yield from _halved("".join(words[:middle]), fits)
    yield from _halved("".join(words[middle:]), fits)
