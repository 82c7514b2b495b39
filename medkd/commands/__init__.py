"""Every verb of the program: parse, load the configuration, call a stage, print one useful line.

The only reader of arguments, environment and exit codes. Pods run the same verbs with the same flags as people do.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from medkd import telemetry
from medkd.commands.flags import build_parser, split_trailing
from medkd.commands.settings import log_context, wants_json
from medkd.errors import MedkdError


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The program: runs one verb and leaves with its exit code (`errors` lists them)."""
    arguments, trailing = split_trailing(list(sys.argv[1:] if argv is None else argv))
    stop = threading.Event()
    try:
        args = build_parser().parse_args(arguments)
        args.trailing = trailing
        telemetry.configure(json_lines=wants_json(args.log), level=args.log_level, **log_context(args))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        code = args.verb(args, stop)
    except MedkdError as error:
        print(f"medkd: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except BrokenPipeError:
        code = 0
    sys.stdout.flush()
    # Calls that outlived the grace period may still hold threads; everything durable is written by now.
    os._exit(code or 0)
