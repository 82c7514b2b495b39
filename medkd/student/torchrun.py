"""`torchrun` that leaves the talking to the ranks: `python -m medkd.student.torchrun` takes its arguments.

When a rank fails, torchrun prints a page of traceback that hides the rank's own line. This prints none and exits 1.
"""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    try:
        main()
    except (ChildFailedError, SignalException):
        sys.exit(1)
