"""One training from joining the other ranks to the uploaded model: what a rank does, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from medkd.config import config_hash
from medkd.errors import StoppedError
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import FileEntry
from medkd.student import packing
from medkd.student.batches import collate, pack
from medkd.student.best import BestWeights
from medkd.student.card import CARD_FILE
from medkd.student.checkpoints import Checkpoints, delete_checkpoints
from medkd.student.engine import Training, TrainingJob, device_of, join, make_engine, precision_of
from medkd.student.export import Lineage, gather_weights, write_model
from medkd.student.flops import model_flops
from medkd.student.liger import use_liger
from medkd.student.lora import add_lora, merge
from medkd.student.measured import Measured
from medkd.student.metrics import Metrics
from medkd.student.models import make_model
from medkd.student.order import course_of
from medkd.student.position import Position
from medkd.student.ranks import Ranks
from medkd.student.tokenizer import StudentTokenizer
from medkd.student.tokens import tokens_folder
from medkd.student.waiting import wait_for_all
from medkd.telemetry import event

__all__ = ["Trained", "TrainingJob", "barrier", "delete_checkpoints", "joined", "train_student"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a training ended. files: the model's, on rank 0; empty elsewhere."""

    position: Position
    measured: Measured | None
    """The exported weights, on the validation split; None where there is none."""
    files: tuple[FileEntry, ...]
    filled_share: float
    """Tokens of documents among all that the passes had room for."""


@contextmanager
def joined(ranks: Ranks) -> Iterator[torch.device]:
    """Be one of the ranks; gives this rank's device. StoppedError where another rank is lost."""
    device = device_of(ranks)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        join(ranks, device)
        yield device
    except RuntimeError as error:
        if _peer_lost(error):
            raise StoppedError("another rank was lost; run training again to go on from the newest checkpoint") from error
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _peer_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone. Gloo has no error type of its own, only its name in the text."""
    return isinstance(error, (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)) or "gloo" in str(error)


def barrier() -> None:
    """Wait for all ranks."""
    wait_for_all()


def train_student(store: Store, job: TrainingJob, ranks: Ranks, device: torch.device, stop: threading.Event) -> Trained:
    """Train, from the newest checkpoint where there is one, and upload the model. Called on all ranks together."""
    student, dtype = job.student, precision_of(job.student, device)
    with _first_of_machine(ranks):
        tokenizer = _fetch_tokenizer(store, job.student_name, ranks.folder)
        model = make_model(store, student, tokenizer, scratch=ranks.folder, seed=job.seed, dtype=dtype)
    packed = packing.install(model)
    if student.liger_kernels:
        use_liger(model, device.type)
    trained = add_lora(model, student.lora) if student.lora else model
    checkpoints = Checkpoints(
        store, job.student_name, ranks, keep=student.keep_checkpoints, identity=_identity(job), zero_stage=student.zero_stage
    )
    found = checkpoints.find()
    engine = make_engine(trained, student, ranks, device, dtype, universal=found is not None and found.universal)
    position = checkpoints.resume(engine, found) if found else Position()
    course = course_of(
        student,
        job.train.sizes,
        job.train.files,
        world_size=ranks.world_size,
        seed=job.seed,
        step=position.step,
        passes_seen=position.passes_seen,
    )
    filled = course.filled_share(job.train.sizes)
    metrics = None
    if ranks.rank == 0:
        event("order", passes=len(course.passes), tokens_per_pass=course.budget, filled_share=round(filled, 4), packed=packed)
        metrics = Metrics(
            store, job.folder, student_name=job.student_name, resumed_step=position.step, total_steps=course.total_steps
        )
    start = getattr(model.config, "decoder_start_token_id", None)
    training = Training(
        engine=engine,
        job=job,
        ranks=ranks,
        course=course,
        collate=partial(pack if packed else collate, family=tokenizer.family, pad=tokenizer.pad, start=start),
        metrics=metrics,
        checkpoints=checkpoints,
        best=BestWeights(store, job.student_name, ranks, student.best_by),
        tokenizer=tokenizer,
        stop=stop,
        flops=model_flops(model.config, student, torch.cuda.get_device_name(device) if device.type == "cuda" else None),
    )
    training.run(position)
    checkpoints.finish()
    files = _upload_model(store, model, gather_weights(engine), tokenizer, training, position)
    if metrics:
        metrics.write("finished")
    return Trained(position=position, measured=training.best.best or training.measured, files=files, filled_share=filled)


@contextmanager
def _first_of_machine(ranks: Ranks) -> Iterator[None]:
    """The machine's first rank goes ahead, and fetches what the others then find."""
    if ranks.local_rank != 0:
        wait_for_all()
    yield
    if ranks.local_rank == 0:
        wait_for_all()


def _fetch_tokenizer(store: Store, student_name: str, scratch: Path) -> StudentTokenizer:
    local = scratch / "tokenizer"
    if not local.exists():
        store.download(f"{tokens_folder(student_name)}/tokenizer", local)
    return StudentTokenizer.load(local)


def _identity(job: TrainingJob) -> dict[str, Any]:
    return {
        "config_hash": config_hash(job.student),
        "data_set_hash": job.data_set_hash,
        "seed": job.seed,
    }


def _upload_model(
    store: Store, model: Any, weights: dict[str, Any] | None, tokenizer: StudentTokenizer, training: Training, position: Position
) -> tuple[FileEntry, ...]:
    """Write and upload the best weights (`weights` where those of the last step are) on rank 0.

    Returns the files, without the card: stage evaluate writes its end.
    """
    job, ranks, best = training.job, training.ranks, training.best
    if ranks.rank != 0 or weights is None:
        return ()
    lineage = Lineage(
        student_name=job.student_name,
        data_set_hash=job.data_set_hash,
        plan_hash=job.plan_hash,
        config_hash=config_hash(job.student),
        rows=len(job.train),
        steps=position.step,
        ranks=ranks.world_size,
        seed=job.seed,
        measured=best.best or training.measured,
    )
    local = ranks.folder / "model"
    chosen = best.weights(position.step) or weights
    if job.student.lora:
        chosen = merge(chosen, model, job.student.lora)
    write_model(model, chosen, tokenizer, job.student, lineage, local)
    best.finish()
    # What was said of the model that lay there before does not hold for this one.
    store.delete(layout.student_evaluation(job.student_name))
    uploaded = [file for file in store.upload(local, model_folder(job.student_name)) if Path(file.path).name != CARD_FILE]
    return tuple(manifests.entry(file.path, (local / Path(file.path).name).read_bytes()) for file in uploaded)


def model_folder(student_name: str) -> str:
    """The finished student's folder in the store."""
    return f"{layout.student_folder(student_name)}/model"
