"""A causal model before any training, which reads a few examples before the conversation. Imports torch when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medkd.config import StudentConfig
from medkd.records import Record
from medkd.store.files import Store
from medkd.student.tokenizer import DoesNotFitError, StudentTokenizer

if TYPE_CHECKING:
    from medkd.student.decode import Extractor


class WithExamples(StudentTokenizer):
    """A student's tokenizer whose prompts begin with as many examples as leave room for the conversation and its answer.

    For a chat model they are turns before the conversation, as its template writes several; where it takes no second one, each is
    a text of its own.
    """

    def __init__(self, tokenizer: StudentTokenizer, examples: Sequence[tuple[str, Record]], answer_length: int) -> None:
        """answer_length: tokens that an answer may take. What the student cannot say is no example."""
        super().__init__(tokenizer.tokenizer, tokenizer.form, tokenizer.linear.schema)
        self._answer_length = answer_length
        chat = self.form.chat
        self._later = replace(chat, before=chat.between) if chat and chat.between is not None else None
        self._examples = []
        for conversation, record in examples:
            try:
                # What a template writes between two turns has the end of the first.
                answer = self.encode(self.linear.write(record)) + ([] if self._later else [self.end])
                self._examples.append([self._asked(conversation, later) + answer for later in (False, True)])
            except DoesNotFitError:
                continue

    def prompt(self, conversation: str) -> list[int]:
        alone = super().prompt(conversation)
        own = self._asked(conversation, later=True)
        room = self.form.max_length - len(own) - self._answer_length
        shown: list[int] = []
        for first, later in self._examples:
            example = later if shown else first
            if len(shown) + len(example) <= room:
                shown += example
        return [*shown, *own] if shown else alone

    def _asked(self, conversation: str, later: bool) -> list[int]:
        """The conversation up to its answer, first or after an example."""
        if later and self._later:
            return self._chat_prompt(self.linear.schema.shown(conversation), self._later)
        return self._prompt(conversation)


def few_shot_extractor(
    store: Store,
    student: StudentConfig,
    tokenizer: StudentTokenizer,
    examples: Sequence[tuple[str, Record]],
    *,
    answer_length: int,
    scratch: Path,
    seed: int,
    constrained: bool = False,
) -> Extractor:
    """The student as training found it, pretrained where it has weights of its own, with examples in its prompts."""
    import torch

    from medkd.student.decode import Extractor
    from medkd.student.models import make_model

    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = make_model(store, student, tokenizer, scratch=scratch, seed=seed, dtype=dtype)
    return Extractor(model, WithExamples(tokenizer, examples, answer_length), constrained=constrained)
