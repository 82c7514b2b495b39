"""Real ranks (DeepSpeed over gloo) without the price of starting Python and importing torch for each: forked from one server.

`tests.student.trained.train` starts ranks as users do; here many trainings are tried in the time of one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from medkd.config import StudentConfig
from medkd.student.compile_ops import operator_variables

_PRELOADED = ["medkd.stages.train", "medkd.student.session", "transformers.models.t5", "transformers.models.gpt2"]


@dataclass
class Gang:
    """The ranks of one training; `wait` gives their exit codes."""

    processes: list[BaseProcess]
    folder: Path
    rendezvous: Any = field(repr=False)

    def kill(self, rank: int) -> None:
        """SIGKILL, as a lost node would look."""
        _signal(self.processes[rank], signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM to all ranks, once they listen."""
        wait_until(lambda: len(list(self.folder.glob("listens-*"))) == len(self.processes))
        for process in self.processes:
            _signal(process, signal.SIGTERM)

    def wait(self, seconds: float = 500) -> list[int | None]:
        """Exit codes by rank; -9 where it was killed."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]


def start_ranks(run: str, name: str, student: StudentConfig, ranks: int, scratch: Path, **options: Any) -> Gang:
    """Train the student whose tokens lie in the store at `run` on so many ranks; options go to `stages.train.train`."""
    from torch.distributed import TCPStore

    os.environ.update({"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **operator_variables(os.environ)})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    rendezvous = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder = scratch / f"ranks-{rendezvous.port}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    raw = student.model_dump(mode="json")
    processes = [
        context.Process(target=_rank, args=(rank, ranks, rendezvous.port, folder, run, name, raw, options))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    return Gang(list(processes), folder, rendezvous)


def train_ranks(run: str, name: str, student: StudentConfig, ranks: int, scratch: Path, **options: Any) -> list[int | None]:
    """As `start_ranks`, to the end."""
    return start_ranks(run, name, student, ranks, scratch, **options).wait()


def wait_until(found: Callable[[], bool], seconds: float = 400) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def _signal(process: BaseProcess, number: int) -> None:
    if process.pid and process.exitcode is None:
        os.kill(process.pid, number)


def _rank(
    rank: int, ranks: int, port: int, folder: Path, run: str, name: str, raw: dict[str, Any], options: dict[str, Any]
) -> None:
    """A rank's whole life, with the exit code that `medkd train` would leave with."""
    from medkd import telemetry
    from medkd.errors import MedkdError
    from medkd.stages.train import train
    from medkd.store.files import open_store
    from medkd.student.ranks import Ranks

    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
    )
    telemetry.configure(json_lines=False, rank=rank)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    (folder / f"listens-{rank}").touch()
    mine = Ranks(rank=rank, local_rank=rank, world_size=ranks, local_world_size=ranks, folder=folder)
    code = 0
    try:
        student = StudentConfig.model_validate(raw)
        train(open_store(run), student_name=name, student=student, ranks=mine, stop=stop, **options)
    except MedkdError as error:
        print(f"medkd: {error}", flush=True)
        code = error.exit_code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)
