"""Stage train: from the tokens of a data set to a student. Runs once in every rank that `student.launch` starts."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from medkd.config import StudentConfig, config_hash
from medkd.errors import ConfigError
from medkd.quality.scores import score
from medkd.records import Record, RecordSchema
from medkd.store import layout, manifests
from medkd.store.files import Store
from medkd.store.manifests import Manifest
from medkd.student.ranks import Ranks
from medkd.student.rows import TokenRows
from medkd.student.tokens import tokens_folder


def train_folder(student_name: str) -> str:
    """Holds metrics.jsonl, progress.json and manifest.json of a student's training."""
    return f"{layout.student_folder(student_name)}/train"


def train_manifest_path(student_name: str) -> str:
    return f"{train_folder(student_name)}/manifest.json"


def train(
    store: Store,
    *,
    student_name: str,
    student: StudentConfig,
    ranks: Ranks,
    stop: threading.Event,
    seed: int = 0,
    grace_seconds: float = 100.0,
) -> Manifest:
    """Train a student, or go on where its newest checkpoint left off; does nothing where it is complete.

    grace_seconds: from `stop` to being killed; a checkpoint is saved if it fits in.

    Raises ConfigError where the tokens are missing or of another configuration, InputError where a file differs from its
    manifest, StoppedError where `stop` was set or another rank was lost.
    """
    from medkd.student import session

    tokens = manifests.require(store, f"{tokens_folder(student_name)}/manifest.json", "prepare")
    if tokens.config_hash != config_hash(student):
        raise ConfigError(f"student {student_name}: its tokens were made with another configuration; run prepare again")
    done = manifests.read(store, train_manifest_path(student_name))
    if done and done.config_hash == tokens.config_hash and done.inputs == _hashes(tokens):
        return done
    job = session.TrainingJob(
        student_name=student_name,
        student=student,
        train=TokenRows(store, tokens, "train"),
        validation=TokenRows(store, tokens, "validation"),
        plan_hash=tokens.plan_hash,
        data_set_hash=tokens.inputs[layout.DATASET_MANIFEST],
        seed=seed,
        folder=train_folder(student_name),
        score=_field_f1,
        grace_seconds=grace_seconds,
    )
    with session.joined(ranks) as device:
        trained = session.train_student(store, job, ranks, device, stop)
        # No rank leaves before all have uploaded: one that was done would not come back to a gang that has to start again.
        session.barrier()
        manifest = Manifest(
            stage="train",
            plan_hash=tokens.plan_hash,
            config_hash=tokens.config_hash,
            inputs=_hashes(tokens),
            files=trained.files,
            counts={
                "steps": trained.position.step,
                "documents_seen": trained.position.documents_seen,
                "filled_share": round(trained.filled_share, 4),
                "ranks": ranks.world_size,
                "validation_loss": trained.measured and trained.measured.loss,
                "validation_field_f1": trained.measured and trained.measured.field_f1,
            },
        )
        if ranks.rank == 0:
            manifests.write(store, train_manifest_path(student_name), manifest)
            session.delete_checkpoints(store, student_name)
        session.barrier()
    return manifest


def _field_f1(compared: Sequence[tuple[Record, Record | None]], schema: RecordSchema) -> float:
    """Micro-F1 over all fields; an answer that is no record claims nothing."""
    return score([(gold, found, found is not None, found is not None) for gold, found in compared], schema).micro.f1


def _hashes(tokens: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in tokens.files}
