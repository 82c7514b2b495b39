"""The training loop: one student, any number of ranks, DeepSpeed ZeRO underneath.

The loop does not know which family it trains. Each step's gradient is the mean over all answer tokens of the step, however
they are spread over ranks and micro-batches, and the order of rows is pure in the seed, so a run that was interrupted and
resumed goes the same way as one that was not.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import deepspeed
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from medkd.config import StudentConfig
from medkd.errors import StoppedError
from medkd.student.batches import Batch
from medkd.student.best import BestWeights
from medkd.student.checkpoints import Checkpoints
from medkd.student.families import IGNORED
from medkd.student.measured import Measured
from medkd.student.metrics import Metrics
from medkd.student.models import AnswerLoss, parameter_groups
from medkd.student.order import Schedule, epoch_steps, learning_rate, micro_batches
from medkd.student.position import Position
from medkd.student.ranks import Ranks
from medkd.student.tokenizer import StudentTokenizer
from medkd.student.validation import Score, field_f1, mean_loss

Row = dict[str, Any]

# Ranks wait for one another this long: loading and saving a large model must fit, and a lost peer must not hang a node for long.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
LOG_EVERY_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What is trained on what. Rows are token rows (`input_ids`, `labels`, `length`)."""

    student_name: str
    student: StudentConfig
    train: Sequence[Row]
    validation: Sequence[Row]
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


def deepspeed_config(student: StudentConfig, *, world_size: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration, whole and without `auto`; pure. device: `cpu` or `cuda`."""
    on_gpu = device == "cuda"
    zero: dict[str, Any] = {
        "stage": student.zero_stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": on_gpu,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if student.offload_optimizer and on_gpu:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": student.batch_size,
        "gradient_accumulation_steps": student.gradient_accumulation,
        "train_batch_size": student.batch_size * student.gradient_accumulation * world_size,
        "gradient_clipping": student.max_gradient_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": dtype is torch.bfloat16},
        # Each machine has a folder of its own, the store is where they meet.
        "checkpoint": {"use_node_local_storage": True},
        "steps_per_print": 2**31,
    }


def join(ranks: Ranks, device: torch.device) -> None:
    """Meet the other ranks."""
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if ranks.world_size == 1:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    with redirect_stdout(sys.stderr):  # DeepSpeed prints there, and standard output is the command's
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def make_engine(model: Any, student: StudentConfig, ranks: Ranks, device: torch.device, dtype: torch.dtype) -> Any:
    """DeepSpeed around the model, its loss and its optimizer."""
    wrapped = AnswerLoss(model)
    groups = parameter_groups(wrapped, student.weight_decay)
    engine, *_ = deepspeed.initialize(
        model=wrapped,
        optimizer=_optimizer(groups, student, device),
        config=deepspeed_config(student, world_size=ranks.world_size, device=device.type, dtype=dtype),
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
    schedule: Schedule
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

    def __post_init__(self) -> None:
        self._device = torch.device(self.engine.device)
        self._student = self.job.student
        self._answer_tokens = [sum(label != IGNORED for label in row["labels"]) for row in self.job.train]
        self._lengths = [row["length"] for row in self.job.train]
        self._pace = _Pace()

    def run(self, position: Position) -> Position:
        """Train up to the schedule's last step. StoppedError when told to stop: the position is saved."""
        per_epoch, last = self.schedule.steps_per_epoch, self.schedule.total_steps
        if 0 < position.step < last and position.step % per_epoch == 0:
            self._validate(position)  # was saved between the end of an epoch and its validation
        while position.step < last:
            epoch, done = divmod(position.step, per_epoch)
            steps = epoch_steps(self._lengths, self.schedule, seed=self.job.seed, epoch=epoch)
            for rows in steps[done : last - epoch * per_epoch]:
                self._step(position, rows)
            self._validate(position)
        return position

    def _step(self, position: Position, rows: Sequence[int]) -> None:
        position.step += 1
        position.documents_seen += len(rows)
        rate = learning_rate(position.step, self._student, self.schedule.total_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        started = time.monotonic()
        loss_sum, stopping, stored = self._agree(self._forward_backward(rows))
        self.checkpoints.ranks_stored(stored)
        position.loss_sum += loss_sum
        position.answer_tokens += sum(self._answer_tokens[row] for row in rows)
        self._pace.tokens += sum(self._lengths[row] for row in rows)
        if position.step % LOG_EVERY_STEPS == 0 or position.step == self.schedule.total_steps:
            self._log(position, rate)
        if stopping:
            # One of the ranks may have been told as early as at the start of this step.
            self._leave(position, self.job.grace_seconds - (time.monotonic() - started))
        if position.step % self._student.checkpoint_every_steps == 0 and position.step < self.schedule.total_steps:
            self._save(position)

    def _save(self, position: Position) -> None:
        """Save the position, and before that all lines that lead to it: a resumed training does not write them again."""
        if self.metrics:
            self.metrics.write("training")
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

    def _forward_backward(self, rows: Sequence[int]) -> float:
        """One optimizer step; returns this rank's summed loss."""
        ranks, accumulation = self.ranks, self._student.gradient_accumulation
        answer_tokens = sum(self._answer_tokens[row] for row in rows)
        # DeepSpeed takes the mean over ranks and micro-batches; this makes it the mean over all answer tokens of the step.
        scale = ranks.world_size * accumulation / answer_tokens
        total = torch.zeros((), device=self._device)
        for part in micro_batches(rows, rank=ranks.rank, world_size=ranks.world_size, accumulation=accumulation):
            batch = self.collate([self.job.train[row] for row in part]).to(self._device)
            loss = self.engine(batch.inputs, batch.labels)
            self.engine.backward(loss * scale)
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
        """Counted from 1."""
        return (position.step - 1) // self.schedule.steps_per_epoch + 1

    def _validate(self, position: Position) -> None:
        """Measure on the validation split, and keep the weights if they are the best so far."""
        rows = self.job.validation
        if not rows:
            return
        loss = mean_loss(self.engine, rows, self.ranks, self.collate, batch_size=self._student.batch_size)
        asked = rows[: self._student.validation_samples]
        score = field_f1(self.engine, asked, self.ranks, self.tokenizer, self.job.score) if asked and self.job.score else None
        self.measured = Measured(step=position.step, loss=loss, field_f1=score)
        if self.metrics:
            numbers = {"validation_loss": loss, **({} if score is None else {"validation_field_f1": score})}
            self.metrics.add(step=position.step, epoch=self._epoch(position), **numbers)
        self.best.offer(self.engine, self.measured)


class _Pace:
    """Useful tokens (no padding) and wall clock since the last line of metrics."""

    def __init__(self) -> None:
        self.tokens = 0
        self._clock = time.monotonic()

    def take(self) -> dict[str, float]:
        now = time.monotonic()
        seconds, tokens = now - self._clock, self.tokens
        self._clock, self.tokens = now, 0
        return {"tokens_per_second": round(tokens / seconds, 1), "seconds": round(seconds, 3)}
