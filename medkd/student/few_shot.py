"""A causal model before any training, which reads a few examples before the conversation. Imports torch when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medkd.config import StudentConfig
from medkd.records import Record
from medkd.store.files import Store
from medkd.student.tokenizer import DoesNotFitError, StudentTokenizer

if TYPE_CHECKING:
    from medkd.student.decode import Extractor


class WithExamples(StudentTokenizer):
    """A student's tokenizer whose prompts begin with as many examples as leave room for the conversation and its answer."""

    def __init__(self, tokenizer: StudentTokenizer, examples: Sequence[tuple[str, Record]], answer_length: int) -> None:
        """answer_length: tokens that an answer may take. What the student cannot say is no example."""
        super().__init__(tokenizer.tokenizer, tokenizer.form, tokenizer.linear.schema)
        self._answer_length = answer_length
        self._examples = []
        for conversation, record in examples:
            try:
                self._examples.append([*self._prompt(conversation), *self.encode(self.linear.write(record)), self.end])
            except DoesNotFitError:
                continue

    def prompt(self, conversation: str) -> list[int]:
        own = super().prompt(conversation)
        room = self.form.max_length - len(own) - self._answer_length
        shown: list[int] = []
        for example in self._examples:
            if len(shown) + len(example) <= room:
                shown += example
        return [*shown, *own]


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
