"""Samples and their pieces: turns of a conversation, ids, the training triple and the hashes that everything agrees on."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

INSTRUCTION = (
    "Extract the patient's details, medical history, current diagnosis and prescription from the conversation as JSON. "
    "Write NOT PROVIDED for facts the conversation does not give."
)

REFERENCES = ("human", "simulator", "teacher")
"""Whose a record is that others are compared with, the most trusted first."""


@dataclass(frozen=True)
class Turn:
    """One utterance. `speaker` is empty for text before the first speaker label."""

    speaker: str
    text: str


# A speaker label is a short capitalised name at the start of a line ("Doctor:", "Guest_family:", "Dr. Smith:").
_LABEL = re.compile(r"^\s*([A-Z][\w.\- ]{0,29}?)\s*:\s*(.*)$")


def turns(conversation: str) -> list[Turn]:
    """The conversation's turns in order; lines without a speaker label continue the turn before them."""
    found: list[Turn] = []
    for line in conversation.splitlines():
        match = _LABEL.match(line)
        if match:
            found.append(Turn(match[1], match[2].strip()))
        elif line.strip():
            last = found.pop() if found else Turn("", "")
            found.append(Turn(last.speaker, f"{last.text} {line.strip()}".strip()))
    return found


def numbered(conversation: str) -> str:
    """The conversation with a number from 1 before each of its turns; the turns are those of `turns`."""
    count = 0
    lines = []
    for line in conversation.splitlines():
        if _LABEL.match(line) or (line.strip() and not count):
            count += 1
            line = f"{count}. {line.lstrip()}"
        lines.append(line)
    return "\n".join(lines)


def turn_lines(conversation: str) -> list[str]:
    """The conversation's turns as they are written, label and following lines included: one for each of `turns`."""
    found: list[str] = []
    for line in conversation.splitlines():
        if _LABEL.match(line) or (line.strip() and not found):
            found.append(line)
        elif line.strip():
            found[-1] = f"{found[-1]}\n{line}"
    return found


def speaker_label(turn: str) -> str:
    """What stands before a turn's words (`Doctor: `), empty where nothing does."""
    match = _LABEL.match(turn.partition("\n")[0])
    return turn[: match.start(2)] if match else ""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a conversation that a student reads at once.

    turns: of each turn of the text, which one of the conversation it is, or is a piece of; counted from 0, as `turns` does.
    """

    text: str
    turns: tuple[int, ...]


def sample_id(index: int) -> str:
    """Sortable id of a sample: its index in the plan, zero-padded."""
    return f"{index:09d}"


def sample_index(sample_id: str) -> int:
    """The index in the plan that a sample's id stands for."""
    return int(sample_id)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes, so it can be hashed."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def sha256_hex(data: str | bytes) -> str:
    """SHA-256 as hex; text counts as UTF-8. A lone surrogate, which JSON can carry, counts as its three raw bytes."""
    return hashlib.sha256(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data).hexdigest()


def normalised(conversation: str) -> str:
    """Lower case, NFKC, words separated by single spaces: what makes two conversations the same."""
    return " ".join(unicodedata.normalize("NFKC", conversation).lower().split())


def conversation_sha256(conversation: str) -> str:
    """Identity of a conversation, robust to case and spacing; joins gold records and decides the split."""
    return sha256_hex(normalised(conversation))


def data_set_hash(rows: Iterable[dict[str, str]]) -> str:
    """SHA-256 over the sorted canonical (sample_id, topic, mood, instruction, input, output) of accepted samples.

    Independent of shard count, row order, store and everything that was paid or timed.
    """
    return sha256_hex("\n".join(sorted(_line(row) for row in rows)))


class DataSetHasher:
    """`data_set_hash` of rows that come one by one, in the order of their sample ids."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = ""

    def add(self, row: dict[str, Any]) -> None:
        """One more row; ValueError where its id is not above the last one's."""
        line = _line(row)
        if line <= self._last:
            raise ValueError(f"sample {row['sample_id']} does not come after the row before it")
        self._hash.update(f"{chr(10) if self._last else ''}{line}".encode("utf-8", "surrogatepass"))
        self._last = line

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _line(row: dict[str, Any]) -> str:
    return canonical_json([row[key] for key in ("sample_id", "topic", "mood", "instruction", "input", "output")])


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """What one variation of a sample will be: pure in (seed, index, variation), the same for any shard count."""

    index: int
    variation: int
    topic: str
    mood: str
    exchanges: int
    """A doctor's turn and the patient's answer count as one."""
    age: int
    sex: str
    style: str
    """How the patient speaks, for example `rambling` or `terse`."""
    seed: int
    """Sent to teachers that take one."""

    @property
    def sample_id(self) -> str:
        return sample_id(self.index)
