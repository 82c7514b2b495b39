"""Meeting the other machines of a gang: waits until the first one can be found, so that `torchrun` does not fail on a name.

A pod's name is known to DNS seconds after the pod starts, an old address for some seconds after it ended, and the first pod may
start minutes later than the others: node scale-up, image pull, back-off. Imports no torch.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from medkd.errors import StoppedError, UnreachableError
from medkd.telemetry import event

DEFAULT_SECONDS = 1800.0
CONNECT_SECONDS = 5.0
TRY_EVERY_SECONDS = 1.0
SAY_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class Gang:
    """Where this machine's `torchrun` meets the others."""

    rank: int
    """Of this machine; the first one, 0, listens."""
    host: str
    port: int
    seconds: float = DEFAULT_SECONDS
    """In which all have to meet."""


def gang_of(environment: Mapping[str, str]) -> Gang | None:
    """What the PET_ variables say; None for a machine that trains alone."""
    if int(environment.get("PET_NNODES", "1")) < 2:
        return None
    settings = dict(pair.split("=", 1) for pair in environment.get("PET_RDZV_CONF", "").split(",") if "=" in pair)
    return Gang(
        rank=int(environment.get("PET_NODE_RANK", "0")),
        host=environment["PET_MASTER_ADDR"],
        port=int(environment.get("PET_MASTER_PORT", "29500")),
        seconds=float(settings.get("timeout", DEFAULT_SECONDS)),
    )


def meet(gang: Gang, stop: threading.Event) -> None:
    """Return once the first machine's name is known and, on the others, once it listens.

    UnreachableError where that does not come to be in the gang's time, StoppedError where `stop` was set.
    """
    started = said = time.monotonic()
    while (missing := _missing(gang)) is not None:
        waited = time.monotonic() - started
        if waited > gang.seconds:
            raise UnreachableError(f"the gang's first pod was not found in {gang.seconds:.0f} s: {missing}; did it start?")
        if time.monotonic() - said >= SAY_EVERY_SECONDS:
            said = time.monotonic()
            event("waiting for the gang's first pod", reason=missing, waited_seconds=round(waited))
        if stop.wait(TRY_EVERY_SECONDS):
            raise StoppedError("stopped while waiting for the gang; the next start goes on from the newest checkpoint")


def _missing(gang: Gang) -> str | None:
    """What keeps this machine from starting; None: nothing."""
    where = f"{gang.host}:{gang.port}"
    try:
        if gang.rank == 0:
            socket.getaddrinfo(gang.host, gang.port)
        else:
            socket.create_connection((gang.host, gang.port), timeout=CONNECT_SECONDS).close()
    except socket.gaierror as error:
        return f"the name {gang.host} is not known yet ({error.strerror})"
    except OSError as error:
        return f"{where} does not answer yet ({error.strerror or type(error).__name__})"
    return None
