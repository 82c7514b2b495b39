"""The program with arguments, environment and exit codes, in a process of its own.

The process is forked from one that has loaded the program, so that seconds of imports are paid once for all tests of a worker.
That the program also starts from nothing is what `test_local_run` and `test_canaries` show.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 300
"""Of one command at most; few need more than one, and many times that where others keep the machine busy."""

_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload(
    [
        "medkd.commands",
        *(f"medkd.stages.{stage}" for stage in ("preflight", "generate", "prepare", "report", "inspection", "difference")),
        *(f"medkd.stages.{stage}" for stage in ("review", "external", "estimates", "costs", "purge", "extract")),
        # What preflight tells of the student's memory.
        "transformers.models.auto.configuration_auto",
        "transformers.models.t5.configuration_t5",
    ]
)


def medkd(*arguments: str, environment: dict[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `medkd ARGUMENTS` to its end. No key of this process's environment is handed on."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    with tempfile.TemporaryDirectory() as folder:
        given, said, complained = (Path(folder, name) for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        process = _forked.Process(
            target=_main, args=(arguments, {**clean, **(environment or {})}, str(given), str(said), str(complained))
        )
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"medkd {' '.join(arguments)}: still runs after {SECONDS} s; said {complained.read_text()}")
        return subprocess.CompletedProcess(arguments, process.exitcode, said.read_text(), complained.read_text())


def _main(arguments: tuple[str, ...], environment: dict[str, str], given: str, said: str, complained: str) -> None:
    written = os.O_WRONLY | os.O_CREAT
    for number, (path, flags) in enumerate([(given, os.O_RDONLY), (said, written), (complained, written)]):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, buffering=1) for number, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(environment)
    from medkd.commands import main

    main(arguments)


def refused(finished: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The process said one line and left with the code."""
    lines = [line for line in finished.stderr.splitlines() if line.startswith("medkd: ")]
    assert finished.returncode == code, finished.stderr
    assert len(lines) == 1 and "Traceback" not in finished.stderr, finished.stderr
    for word in words:
        assert word in lines[0]
