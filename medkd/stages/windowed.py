"""A student on conversations of any length: each is read in the student's windows, and their records are merged into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from medkd.quality.window_records import merge_records, with_turns_of_the_whole
from medkd.records import RecordSchema
from medkd.samples import Window
from medkd.student.tokenizer import DoesNotFitError, StudentTokenizer

if TYPE_CHECKING:
    from medkd.student.decode import Extraction, Extractor


def read_in_windows(
    extractor: Extractor,
    conversations: Sequence[str],
    *,
    batch_size: int = 32,
    max_answer_length: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Extraction]:
    """As `Extractor.extract`, which sees the windows of all conversations at once; an answer's limit is each window's."""
    windows = [_windows(extractor.tokenizer, conversation) for conversation in conversations]
    texts = [window.text for of_one in windows for window in of_one]
    answers = iter(extractor.extract(texts, batch_size=batch_size, max_answer_length=max_answer_length, on_batch=on_batch))
    return [_merged(answers, of_one, extractor.tokenizer.linear.schema) for of_one in windows]


def _windows(tokenizer: StudentTokenizer, conversation: str) -> list[Window]:
    try:
        return tokenizer.windows(conversation)
    except DoesNotFitError:
        # The student is asked all the same, and says why it cannot read this.
        return [Window(text=conversation, turns=())]


def _merged(answers: Iterator[Extraction], windows: Sequence[Window], schema: RecordSchema) -> Extraction:
    """One answer of the next few. Its certainty is that of all tokens of them, its text is theirs, a line or more for each."""
    from medkd.student.decode import Extraction

    parts = [next(answers) for _ in windows]
    if len(parts) == 1:
        return parts[0]
    records = [
        with_turns_of_the_whole(part.record, window, schema)
        for part, window in zip(parts, windows, strict=True)
        if part.record is not None
    ]
    written = sum(part.written for part in parts)
    logprobs = sum(part.written * (part.mean_logprob or 0.0) for part in parts)
    return Extraction(
        raw_text="\n".join(part.raw_text for part in parts),
        record=merge_records(records, schema) if records else None,
        mean_logprob=logprobs / written if written else None,
        length=sum(part.length for part in parts),
        cut=next((part.cut for part in parts if part.cut), None),
        # Windows of one batch took the same time together; two batches never take equal times to the last digit.
        seconds=sum({part.seconds for part in parts}),
        written=written,
        windows=len(parts),
        unanswered_windows=len(parts) - len(records),
    )
