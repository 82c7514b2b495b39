"""A verb of the program in this process: what it prints and its exit code, without a second that a process takes to start."""

from __future__ import annotations

import contextlib
import io
import subprocess
import threading
from collections.abc import Iterator

from medkd import telemetry
from medkd.commands.flags import build_parser
from medkd.errors import MedkdError


def medkd(*words: str) -> subprocess.CompletedProcess[str]:
    """Like the command line `medkd WORDS` ended; a crash is raised here. Only for verbs that leave signals and threads alone."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), _logged(errors):
        try:
            args = build_parser().parse_args(words)
            code = args.verb(args, threading.Event())
        except MedkdError as error:
            print(f"medkd: {error}", file=errors)
            code = error.exit_code
    return subprocess.CompletedProcess(words, code or 0, output.getvalue(), errors.getvalue())


@contextlib.contextmanager
def _logged(stream: io.StringIO) -> Iterator[None]:
    """The program's log goes to the stream meanwhile."""
    before = telemetry.log.handlers[:], telemetry.log.level, telemetry.log.propagate
    telemetry.configure(json_lines=True, stream=stream)
    try:
        yield
    finally:
        telemetry.log.handlers[:], level, telemetry.log.propagate = before
        telemetry.log.setLevel(level)
