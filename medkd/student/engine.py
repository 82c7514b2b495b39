"""The training loop: one student, any number of ranks, DeepSpeed ZeRO underneath.

The loop does not know which family it trains. Each step's gradient is the mean over all answer tokens of the step, however
they are spread over ranks and micro-batches, and the order of rows is pure in the seed, so a run that was interrupted and
resumed goes the same way as one that was not.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import deepspeed
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from medkd.config import StudentConfig
from medkd.errors import StoppedError
from medkd.student import waiting
from medkd.student.batches import Batch
from medkd.student.best import BestWeights
from medkd.student.checkpoints import Checkpoints
from medkd.student.deepspeed_config import deepspeed_config
from medkd.student.flops import ModelFlops
from medkd.student.measured import Measured
from medkd.student.metrics import PARTS, Metrics
from medkd.student.models import AnswerLoss, parameter_groups
from medkd.student.order import Course, Pass, learning_rate
from medkd.student.position import Position
from medkd.student.ranks import Ranks
from medkd.student.rows import TokenRows
from medkd.student.tokenizer import StudentTokenizer
from medkd.student.validation import Score, field_f1, mean_loss

Row = dict[str, Any]

# Ranks wait for one another this long within a step; `waiting` is for what one of them does alone.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
LOG_EVERY_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What is trained on what."""

    student_name: str
    student: StudentConfig
    train: TokenRows
    validation: TokenRows
    plan_hash: str
    data_set_hash: str
    seed: int
    folder: str
    """Where metrics.jsonl and progress.json go in the store."""
    score: Score | None = None
    """How records that the student writes to validation rows are scored; None: it is not asked to write any."""
    grace_seconds: float = 100.0
    """From being told to stop to being killed."""


def device_of(ranks: Ranks) -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    return torch.device("cuda", ranks.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def precision_of(student: StudentConfig, device: torch.device) -> torch.dtype:
    """bf16 where it is asked for, or where it is left open and the device is a GPU that has it; else fp32. Never fp16: T5
    overflows."""
    automatic = student.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if automatic or student.precision == "bf16" else torch.float32


def join(ranks: Ranks, device: torch.device) -> None:
    """Meet the other ranks."""
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if ranks.world_size == 1:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
        waiting.prepare()
    with redirect_stdout(sys.stderr):  # DeepSpeed prints there, and standard output is the command's
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def make_engine(
    model: Any, student: StudentConfig, ranks: Ranks, device: torch.device, dtype: torch.dtype, *, universal: bool = False
) -> Any:
    """DeepSpeed around the model, its loss and its optimizer."""
    wrapped = AnswerLoss(model)
    groups = parameter_groups(wrapped, student.weight_decay)
    engine, *_ = deepspeed.initialize(
        model=wrapped,
        optimizer=_optimizer(groups, student, device),
        config=deepspeed_config(
            student, world_size=ranks.world_size, device=device.type, bf16=dtype is torch.bfloat16, universal=universal
        ),
        dist_init_required=False,
    )
    return engine


def _optimizer(groups: list[dict[str, Any]], student: StudentConfig, device: torch.device) -> torch.optim.Optimizer:
    if student.offload_optimizer and device.type == "cuda":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        offloaded: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, lr=student.learning_rate)
        return offloaded
    return torch.optim.AdamW(groups, lr=student.learning_rate, fused=True)


@dataclass(kw_only=True)
class Training:
    """One training of one student, from a position to the end."""

    engine: Any
    job: TrainingJob
    ranks: Ranks
    course: Course
    collate: Callable[[Sequence[Row]], Batch]
    metrics: Metrics | None
    """On rank 0 alone."""
    checkpoints: Checkpoints
    best: BestWeights
    tokenizer: StudentTokenizer
    stop: threading.Event
    """Set to leave."""
    measured: Measured | None = None
    """On the validation split; None before the first epoch's end."""
    flops: ModelFlops | None = None
    """None: how well the GPUs are used cannot be told."""

    def __post_init__(self) -> None:
        self._device = torch.device(self.engine.device)
        self._student = self.job.student
        self._pace = _Pace(self._device, None if self.flops is None else self.flops.peak * self.ranks.world_size)

    def run(self, position: Position) -> Position:
        """Train to the end of the course. StoppedError when told to stop."""
        if self._was_left_unmeasured(position):
            self._validate(position)  # was saved between the end of an epoch and its validation
        while position.passes_seen < self.course.last:
            before = self.course.epoch(position.passes_seen)
            self._step(position, self.course.step(position.passes_seen))
            if self.course.epoch(position.passes_seen) > before or position.passes_seen >= self.course.last:
                self._validate(position)
        return position

    def _was_left_unmeasured(self, position: Position) -> bool:
        """Whether the step before, which was saved, ended an epoch."""
        if not 0 < position.passes_seen < self.course.last:
            return False
        return self.course.epoch(position.passes_seen) > self.course.epoch(position.passes_seen - position.passes_of_step)

    def _step(self, position: Position, passes: Sequence[Pass]) -> None:
        rows = [row for one in passes for row in one]
        position.step += 1
        position.passes_seen += len(passes)
        position.passes_of_step = len(passes)
        position.documents_seen += len(rows)
        rate = learning_rate(position.passes_seen / self.course.last, self._student, self.course.per_step / self.course.last)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        started = time.monotonic()
        loss_sum, stopping, stored = self._agree(self._forward_backward(passes))
        self.checkpoints.ranks_stored(stored)
        position.loss_sum += loss_sum
        position.answer_tokens += sum(self.job.train.answers[row] for row in rows)
        self._pace.tokens += sum(self.job.train.sizes[row] for row in rows)
        if self.flops:
            self._pace.flops += sum(self.flops.document(self.job.train.sizes[row], self.job.train.answers[row]) for row in rows)
        ended = position.passes_seen >= self.course.last
        if position.step % LOG_EVERY_STEPS == 0 or ended:
            self._log(position, rate)
        if stopping:
            # One of the ranks may have been told as early as at the start of this step.
            self._leave(position, self.job.grace_seconds - (time.monotonic() - started))
        if position.step % self._student.checkpoint_every_steps == 0 and not ended:
            self._save(position)

    def _save(self, position: Position) -> None:
        """Save the position, and before that all lines that lead to it: a resumed training does not write them again."""
        if self.metrics:
            self.metrics.write("training")
        with self._pace.part("checkpoint"):
            self.checkpoints.save(self.engine, position)

    def _leave(self, position: Position, seconds: float) -> NoReturn:
        """Save as far as that fits into so many seconds, and raise StoppedError in any case."""
        if self.metrics:
            self.metrics.write("stopped")
        if self.checkpoints.leave(self.engine, position, seconds):
            raise StoppedError(f"training stopped at step {position.step}, which is saved; run it again to go on")
        raise StoppedError(
            f"training stopped at step {position.step}, which is not saved: {seconds:.0f} s were left and the last save took "
            f"{self.checkpoints.save_seconds or 0:.0f} s; run it again to go on from step {self.checkpoints.saved_step}"
        )

    def _forward_backward(self, passes: Sequence[Pass]) -> float:
        """One optimizer step; returns this rank's summed loss."""
        answer_tokens = sum(self.job.train.answers[row] for one in passes for row in one)
        # DeepSpeed takes the mean over ranks and passes; this makes it the mean over all answer tokens of the step.
        scale = len(passes) / answer_tokens
        total = torch.zeros((), device=self._device)
        for mine in passes[self.ranks.rank :: self.ranks.world_size]:
            with self._pace.part("data"):
                batch = self.collate([self.job.train[row] for row in mine]).to(self._device)
            with self._pace.part("forward"):
                loss = self.engine(batch)
            with self._pace.part("backward"):
                self.engine.backward(loss * scale)
            with self._pace.part("optimizer"):
                self.engine.step()
            total += loss.detach()
        return total.item()

    def _agree(self, loss_sum: float) -> tuple[float, bool, int]:
        """The loss of all ranks, whether one of them was told to stop (all leave at the same step), and how many ranks have
        stored their part of the checkpoint being saved."""
        mine = [loss_sum, float(self.stop.is_set()), float(self.checkpoints.stored())]
        said = torch.tensor(mine, dtype=torch.float64, device=self._device)
        dist.all_reduce(said)
        loss, stopping, stored = said.tolist()
        return loss, stopping > 0, round(stored)

    def _log(self, position: Position, rate: float) -> None:
        loss = round(position.loss_sum / position.answer_tokens, 6)
        position.loss_sum, position.answer_tokens = 0.0, 0
        if self.metrics:
            epoch = self._epoch(position)
            self.metrics.add(step=position.step, epoch=epoch, learning_rate=rate, loss=loss, **self._pace.take())

    def _epoch(self, position: Position) -> int:
        """The one that the last step's last pass belongs to, counted from 1."""
        return min(self.course.epoch(position.passes_seen - 1), len(self.course.ends) - 1) + 1

    def _validate(self, position: Position) -> None:
        """Measure on the validation split, and keep the weights if they are the best so far."""
        rows = self.job.validation
        if not len(rows):
            return
        loss = mean_loss(self.engine, rows, self.ranks, self.collate, batch_size=self._student.batch_size)
        asked = [rows[row] for row in range(min(len(rows), self._student.validation_samples))]
        score = field_f1(self.engine, asked, self.ranks, self.tokenizer, self.job.score) if asked and self.job.score else None
        self.measured = Measured(step=position.step, loss=loss, field_f1=score)
        if self.metrics:
            numbers = {"validation_loss": loss, **({} if score is None else {"validation_field_f1": score})}
            self.metrics.add(step=position.step, epoch=self._epoch(position), **numbers)
        self.best.offer(self.engine, self.measured)


class _Pace:
    """Useful tokens (no padding), wall clock and memory since the last line of metrics, and the seconds of each part here.

    Of forward, backward and optimizer the clock sees on a GPU only the launching: there they are left out.
    """

    def __init__(self, device: torch.device, peak: float | None) -> None:
        """peak: operations a second of all GPUs together, None where it is not known."""
        self.tokens, self.flops = 0, 0.0
        self._device, self._peak = device, peak
        self._parts = ("data", "checkpoint") if device.type == "cuda" else PARTS
        self._spent = dict.fromkeys(PARTS, 0.0)
        self._clock = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._spent[name] += time.monotonic() - started

    def take(self) -> dict[str, float]:
        now = time.monotonic()
        seconds, tokens, flops = now - self._clock, self.tokens, self.flops
        self._clock, self.tokens, self.flops = now, 0, 0.0
        spent = {f"{part}_seconds": round(self._spent[part], 4) for part in self._parts}
        self._spent = dict.fromkeys(PARTS, 0.0)
        used = {} if self._peak is None else {"mfu": round(flops / seconds / self._peak, 4)}
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "seconds": round(seconds, 3),
            **used,
            "memory_bytes": _most_memory(self._device),
            **spent,
        }


def _most_memory(device: torch.device) -> int:
    """Bytes: the GPU's most since it was last asked, or this process's most so far."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
