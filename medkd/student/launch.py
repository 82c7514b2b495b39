"""Starts a training's ranks with `torchrun` and tells how they ended. Imports no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from medkd.student.compile_ops import operator_variables
from medkd.student.gang import gang_of, meet
from medkd.student.ranks import FOLDER_VARIABLE, ranks_of, recorded_exits, report_exit

__all__ = ["launch_training", "ranks_of", "report_exit"]

STOPPED = 75
GRACE_SECONDS = 100
"""Time that ranks told to stop have to save, before they are killed; less than the 120 s that a pod has."""
# What a person has to mend comes before what a retry mends; "stopped" is also what healthy ranks say when a peer fails.
_FIRST = (78, 77, 64, 65, 1, 69, STOPPED)


def launch_training(
    arguments: Sequence[str],
    *,
    ranks: int | None,
    environment: Mapping[str, str],
    stop: threading.Event,
    grace_seconds: int = GRACE_SECONDS,
) -> int:
    """Run `python -m medkd ARGUMENTS` as `ranks` processes of this machine; returns the exit code of formats 7.

    With `PET_NNODES` in the environment (a pod of several) `torchrun` takes its rendezvous from the PET_ variables, else the
    machine is alone; UnreachableError where the others are not found in time. ranks None: one for each GPU, or one CPU rank.
    `stop` asks the ranks to save and leave, and kills those that are still there after `grace_seconds`.
    """
    ranks = ranks or max(1, num_gpus())
    if gang := gang_of(environment):
        meet(gang, stop)
    with tempfile.TemporaryDirectory(prefix="medkd-ranks-") as folder:
        multi_node = "PET_NNODES" in environment
        command = torchrun_command(arguments, ranks=ranks, multi_node=multi_node, grace_seconds=grace_seconds)
        variables = {**environment, **rank_variables(ranks, Path(folder), environment)}
        # A session of its own: Ctrl-C reaches this process alone, which then stops the ranks in order.
        process = subprocess.Popen(command, env=variables, start_new_session=True)
        _wait(process, stop)
        return exit_code(process.returncode, recorded_exits(Path(folder)), ranks)


def torchrun_command(arguments: Sequence[str], *, ranks: int, multi_node: bool, grace_seconds: int = GRACE_SECONDS) -> list[str]:
    """The command line that starts the ranks of this machine."""
    alone = [] if multi_node else ["--standalone"]
    torchrun = [sys.executable, "-m", "medkd.student.torchrun", *alone, f"--nproc-per-node={ranks}", "--max-restarts=0"]
    # Behind `--`, torchrun does not take our flags for abbreviations of its own.
    return [*torchrun, f"--shutdown-timeout={grace_seconds}", "-m", "--", "medkd", *arguments]


def rank_variables(ranks: int, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What the ranks' environment has beside the caller's."""
    variables = {FOLDER_VARIABLE: str(folder), **operator_variables(environment, folder)}
    if "OMP_NUM_THREADS" not in environment:
        variables["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    if "DS_ACCELERATOR" not in environment and not num_gpus():
        # The CUDA build of torch runs without a GPU, but DeepSpeed wants to be told before it is imported.
        variables["DS_ACCELERATOR"] = "cpu"
    return variables


def exit_code(torchrun_code: int, recorded: Sequence[int], ranks: int) -> int:
    """How the training ended: `torchrun` says only that some rank failed, the ranks' own codes say why.

    A rank that was killed left no code: a lost peer, which a retry mends.
    """
    if torchrun_code == 0:
        return 0
    failed = {code for code in recorded if code != 0}
    if len(recorded) < ranks:
        failed = (failed - {1}) | {STOPPED}
    return next((code for code in _FIRST if code in failed), 1)


def num_gpus() -> int:
    """NVIDIA devices of this machine."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def gpu_bytes() -> int | None:
    """Memory of this machine's smallest GPU; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return min(int(line) for line in answer.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    asked = False
    while process.poll() is None:
        if stop.wait(0.2) and not asked:
            process.terminate()
            asked = True
        if asked:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
