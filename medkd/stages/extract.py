"""A finished student on files of conversations: a line of JSON for each, how fast that is, and what it costs beside a teacher."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medkd.errors import ConfigError, InputError, StoppedError
from medkd.quality.schema import bad_values
from medkd.stages import standing
from medkd.stages.plan import load_plan
from medkd.stages.windowed import read_in_windows
from medkd.store import tables
from medkd.store.conversations import ImportedRow
from medkd.store.files import Store
from medkd.telemetry import event

if TYPE_CHECKING:
    from medkd.student.decode import Extraction, Extractor

_BATCHES_AT_ONCE = 64
"""Of so many batches, conversations of similar length are put together; what is in memory."""
_PROGRESS_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What became of the conversations, and how long the student worked."""

    outcomes: Counter[str]
    """Conversations by `record`, `record_in_part` where some of their windows have none, `record_with_bad_values` where its
    schema allows other ones, or why there is none."""
    windowed: int = 0
    """Conversations that were read in several windows."""
    seconds: float
    """Of work, without the loading of the model."""
    answered_in: tuple[float, ...]
    """Seconds that each conversation's batch took, sorted."""

    @property
    def per_second(self) -> float:
        return len(self.answered_in) / self.seconds if self.seconds else 0.0

    def within(self, share: float) -> float:
        """Seconds within which this share of the conversations were answered; 0 where none was."""
        last = len(self.answered_in) - 1
        return self.answered_in[min(last, int(share * (last + 1)))] if self.answered_in else 0.0

    def usd_per_1000(self, usd_per_hour: float) -> float | None:
        """What 1,000 conversations cost on a machine of this price; None where none was answered."""
        return 1000 * usd_per_hour / 3600 / self.per_second if self.per_second else None


@dataclass(frozen=True, kw_only=True)
class TeachersPrice:
    """What a run paid for its teacher's extractions."""

    teacher: str
    usd: float
    """Of all extraction calls of the finished shards; repairs and what was rejected afterwards are in it."""
    records: int
    """Rows that were accepted of them."""

    @property
    def usd_per_1000(self) -> float:
        return 1000 * self.usd / self.records


def teachers_price(store: Store) -> TeachersPrice:
    """What a record of the run's teacher cost, the writing of conversations not counted; ConfigError where it has none."""
    plan, cut = load_plan(store)
    finished = standing.shard_manifests(store, range(cut.num_shards))
    files = [file for shard in finished.values() for file in shard.files if file.path.endswith("/calls.parquet")]
    calls = [call for call in tables.stream(store, files, ("step", "cost_usd")) if call["step"] == "extraction"]
    records = sum(shard.counts["accepted"] for shard in finished.values())
    if not calls or not records:
        raise ConfigError(f"{store.url}: its finished shards hold no extraction by a teacher; name another run, or none")
    return TeachersPrice(teacher=plan.teacher["name"], usd=sum(call["cost_usd"] or 0.0 for call in calls), records=records)


def extract(
    extractor: Extractor, rows: Iterable[ImportedRow], output: Path, *, batch_size: int, stop: threading.Event
) -> Extracted:
    """Write a line for each conversation, in their order: its id, the record or null, why it is null, and in how many windows
    it was read; with them, of how many the record holds nothing, and which of its values its schema does not allow, where that
    are some.

    The file appears whole or not at all. InputError where no row holds a conversation, StoppedError where `stop` was set.
    """
    work = _Work(extractor, batch_size, stop)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for line in work.lines(rows):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not work.asked:
            problem = f"; {work.problem}" if work.problem else ""
            raise InputError(f"--input: none of {sum(work.outcomes.values()):,} rows holds a conversation{problem}")
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    return Extracted(
        outcomes=work.outcomes, seconds=work.seconds, answered_in=tuple(sorted(work.answered_in)), windowed=work.windowed
    )


class _Work:
    def __init__(self, extractor: Extractor, batch_size: int, stop: threading.Event) -> None:
        self._extractor, self._batch_size, self._stop = extractor, batch_size, stop
        self.outcomes: Counter[str] = Counter()
        self.answered_in: list[float] = []
        self.asked = self.windowed = self._answered = 0
        self.problem = ""
        self.seconds = 0.0
        self._said = time.monotonic()

    def lines(self, rows: Iterable[ImportedRow]) -> Iterator[dict[str, Any]]:
        coming = iter(rows)
        while part := list(islice(coming, self._batch_size * _BATCHES_AT_ONCE)):
            usable = [row for row in part if row.problem is None]
            self.asked += len(usable)
            started = time.monotonic()
            texts = [row.conversation for row in usable]
            answers = iter(read_in_windows(self._extractor, texts, batch_size=self._batch_size, on_batch=self._on_batch))
            self.seconds += time.monotonic() - started
            for row in part:
                yield self._line(row, None if row.problem else next(answers))

    def _on_batch(self, windows: int) -> None:
        if self._stop.is_set():
            raise StoppedError("extract: stopped, and no output was written; run it again, perhaps on fewer files")
        self._answered += windows
        if time.monotonic() - self._said > _PROGRESS_SECONDS:
            self._said = time.monotonic()
            event("extracting", windows=self._answered)

    def _line(self, row: ImportedRow, answer: Extraction | None) -> dict[str, Any]:
        if answer is None:
            self.problem = self.problem or row.problem or ""
            self.outcomes["unusable_row"] += 1
            return {"source_id": row.source_id, "record": None, "problem": "unusable_row", "detail": row.problem}
        in_part = answer.record is not None and answer.unanswered_windows > 0
        problem = None if in_part else answer.cut or (None if answer.record is not None else "not_a_record")
        bad = [] if problem or answer.record is None else bad_values(answer.record, self._extractor.tokenizer.linear.schema)
        kind = "record_in_part" if in_part else "record_with_bad_values" if bad else "record"
        self.outcomes[problem or kind] += 1
        self.windowed += answer.windows > 1
        if answer.mean_logprob is not None:
            self.answered_in.append(answer.seconds)
        line: dict[str, Any] = {
            "source_id": row.source_id,
            "record": None if problem else answer.record,
            "mean_logprob": answer.mean_logprob,
        }
        line["windows"] = answer.windows
        if in_part:
            line["unanswered_windows"] = answer.unanswered_windows
        if bad:
            line["bad_values"] = bad
        return {**line, "problem": problem, "raw_text": answer.raw_text} if problem else line
