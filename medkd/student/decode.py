"""A finished student at work: conversations in, records out. Needs nothing but the model's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from medkd.records import Record, RecordSchema
from medkd.student.batches import attended, padded
from medkd.student.models import AUTO_MODELS
from medkd.student.tokenizer import DoesNotFitError, Reason, StudentTokenizer

if TYPE_CHECKING:
    from medkd.student.constrained import Constraint, RecordGrammar


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What a student made of one conversation."""

    raw_text: str
    """As written, escapes undone; empty where the student was not asked."""
    record: Record | None
    """None where the text is not a record of the schema."""
    mean_logprob: float | None
    """Of the written tokens and their end; None where the student was not asked."""
    length: int
    """Tokens of the conversation; 0 where it does not fit."""
    cut: Reason | None
    """Why there is no whole answer: the conversation was not read, or the answer reached its limit before it ended."""
    seconds: float = field(default=0.0, compare=False)
    """From the start of its batch to the batch's end; 0 where the student was not asked."""
    written: int = 0
    """Tokens of the answer with its end."""
    windows: int = 1
    """Parts that the conversation was read in; what else is said is then of all of them."""
    unanswered_windows: int = 0
    """Windows that the record holds nothing of, as their answers are no records."""

    @property
    def truncated(self) -> bool:
        return self.cut is not None


class Extractor:
    """A model and its tokenizer. Decodes greedily, in batches of similar length, until each answer ends.

    The batches are shared out over `devices`, a copy of the model on each; None: all GPUs of this machine, else its CPU. Which
    conversations are batched together does not depend on their number, and so neither do the answers.
    """

    def __init__(
        self, model: Any, tokenizer: StudentTokenizer, devices: Sequence[str] | None = None, *, constrained: bool = False
    ) -> None:
        """constrained: write nothing but records, see `constrained`; ConfigError where llguidance is not installed."""
        self.tokenizer = tokenizer
        self._grammar: RecordGrammar | None = None
        if constrained:
            from medkd.student.constrained import RecordGrammar

            self._grammar = RecordGrammar(tokenizer)
        places = devices or [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
        self.constrained = constrained
        """Whether it can write nothing but records."""
        self._idle: Queue[Any] = Queue()
        self._copies = len(places)
        for place in places[1:]:
            self._idle.put(deepcopy(model).to(place).eval())
        self._idle.put(model.to(places[0]).eval())

    @classmethod
    def load(cls, folder: Path, schema: RecordSchema | None = None, *, constrained: bool = False) -> Extractor:
        """The student in a model folder; ConfigError where it is none. `schema` in place of the one in its form."""
        logging.disable_progress_bar()
        tokenizer = StudentTokenizer.load(folder, schema)
        return cls(AUTO_MODELS[tokenizer.family.name].from_pretrained(folder, dtype="auto"), tokenizer, constrained=constrained)

    @property
    def places(self) -> str:
        """What the student runs on, in words."""
        device = self._idle.queue[0].device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU with {torch.get_num_threads()} threads"
        return name if self._copies == 1 else f"{self._copies} x {name}"

    def extract(
        self,
        conversations: Sequence[str],
        *,
        batch_size: int = 32,
        max_answer_length: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Extraction]:
        """The records of the conversations, in their order. max_answer_length: tokens, the student's own limit where None.

        on_batch: called with the size of each batch that is answered; what it raises ends the work.
        """
        found: dict[int, Extraction] = {}
        prompts: dict[int, list[int]] = {}
        for index, conversation in enumerate(conversations):
            try:
                prompts[index] = self.tokenizer.prompt(conversation)
            except DoesNotFitError as problem:
                found[index] = Extraction(raw_text="", record=None, mean_logprob=None, length=0, cut=problem.reason)
        order = sorted(prompts, key=lambda index: len(prompts[index]))
        limit = min(max_answer_length or self.tokenizer.form.max_answer_length, self.tokenizer.form.max_answer_length)
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        with ThreadPoolExecutor(self._copies) as pool:
            written = pool.map(lambda batch: self._write([prompts[index] for index in batch], limit), batches)
            try:
                for batch, (answers, seconds) in zip(batches, written, strict=True):
                    for index, (answer, logprobs) in zip(batch, answers, strict=True):
                        found[index] = self._extraction(len(prompts[index]), answer, logprobs, seconds)
                    if on_batch:
                        on_batch(len(batch))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [found[index] for index in range(len(conversations))]

    def _write(self, prompts: list[list[int]], limit: int) -> tuple[list[tuple[list[int], list[float]]], float]:
        """One batch's answers of at most `limit` tokens, their end not counted, from whichever copy of the model is idle, and
        how many seconds they took."""
        model = self._idle.get()
        started = time.monotonic()
        try:
            return self._generate(model, prompts, limit), time.monotonic() - started
        finally:
            self._idle.put(model)

    def _generate(self, model: Any, prompts: list[list[int]], limit: int) -> list[tuple[list[int], list[float]]]:
        form, tokenizer = self.tokenizer.form, self.tokenizer
        causal = form.family == "causal"
        room = form.max_length - max(map(len, prompts)) if causal else limit + 1
        certainty = _Certainty(self._grammar.follow(len(prompts)) if self._grammar else None)
        with torch.inference_mode():
            written = model.generate(
                input_ids=padded(prompts, tokenizer.pad, left=causal).to(model.device),
                attention_mask=attended(prompts, left=causal).to(model.device),
                max_new_tokens=min(limit + 1, room),
                do_sample=False,
                num_beams=1,
                eos_token_id=tokenizer.end,
                pad_token_id=tokenizer.pad,
                logits_processor=LogitsProcessorList([certainty]),
            )
        # A decoder's output begins with its start id, a causal model's repeats the prompt.
        answers = written[:, max(map(len, prompts)) if causal else 1 :].tolist()
        return list(zip(answers, certainty.logprobs(), strict=True))

    def _extraction(self, length: int, answer: list[int], logprobs: list[float], seconds: float) -> Extraction:
        ended = self.tokenizer.end in answer
        size = answer.index(self.tokenizer.end) if ended else len(answer)
        text = self.tokenizer.decode(answer[:size])
        spoken = logprobs[: size + ended]
        return Extraction(
            raw_text=text,
            record=self.tokenizer.record(text) if ended else None,
            mean_logprob=sum(spoken) / len(spoken),
            written=len(spoken),
            length=length,
            cut=None if ended else "answer_too_long",
            seconds=seconds,
        )


class _Certainty(LogitsProcessor):  # type: ignore[misc]
    """Notes the log-probability of each greedily chosen token, and allows those alone that the constraint does.

    The log-probability is that of the model left to itself: a token that it had to be forced to counts as unlikely.
    """

    def __init__(self, constraint: Constraint | None) -> None:
        self._constraint = constraint
        self._chosen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = self._constraint.allow(input_ids, scores) if self._constraint else scores
        self._chosen.append(allowed.max(dim=-1).values - scores.logsumexp(dim=-1))
        return allowed

    def logprobs(self) -> list[list[float]]:
        """By row of the batch, by written token."""
        found: list[list[float]] = torch.stack(self._chosen, dim=1).tolist()
        return found
