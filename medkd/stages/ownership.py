"""Who works on a run prefix: `owner.json` with a heartbeat, so that two releases never share one prefix unknowingly."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from medkd.errors import ConfigError, StoppedError
from medkd.store import layout
from medkd.store.files import Store

FRESH_SECONDS = 600.0


def check_free(store: Store) -> None:
    """ConfigError where the prefix's owner gave a sign of life within ten minutes."""
    there = _read(store)
    if there is not None and time.time() - there["at"] < FRESH_SECONDS and not _ended_here(there["owner"]):
        raise ConfigError(
            f"{store.url}: {there['owner']} works here (last sign {time.time() - there['at']:.0f} s ago); stop it first, or pass "
            "--take-over if it is dead"
        )


def check_may_take(store: Store, owner: str, *, take_over: bool = False) -> None:
    """ConfigError where another owner of the prefix gave a sign of life within ten minutes; nothing is written."""
    there = _read(store)
    if there is not None:
        _check_same_or_gone(store, there, owner, take_over)


def take(store: Store, owner: str, *, take_over: bool = False) -> None:
    """Become or stay the prefix's owner; ConfigError where another one gave a sign of life within ten minutes."""
    entry = _entry(owner)
    there = None
    while there is None:
        if store.create(layout.OWNER, entry):
            return
        # None where it was released in between: then it is free.
        there = _read(store)
    _check_same_or_gone(store, there, owner, take_over)
    store.replace(layout.OWNER, entry)


def owner(store: Store) -> str | None:
    """Whose the prefix is; None where nobody's."""
    try:
        return str(json.loads(store.read(layout.OWNER))["owner"])
    except FileNotFoundError:
        return None


def beat(store: Store, owner: str) -> None:
    """A sign of life; StoppedError where somebody else has taken the prefix over since."""
    there = _read(store)
    if there is not None and there["owner"] != owner:
        raise StoppedError(f"{store.url}: {there['owner']} has taken it over; this run stops here")
    store.replace(layout.OWNER, _entry(owner))


def release(store: Store, owner: str) -> None:
    """Leave the prefix to whoever comes next."""
    there = _read(store)
    if there is not None and there["owner"] == owner:
        store.delete(layout.OWNER)


def _check_same_or_gone(store: Store, there: dict[str, Any], owner: str, take_over: bool) -> None:
    age = time.time() - there["at"]
    if there["owner"] != owner and age < FRESH_SECONDS and not take_over and not _ended_here(there["owner"]):
        raise ConfigError(
            f"{store.url}: {there['owner']} works here (last sign {age:.0f} s ago); wait until it has ended, choose another "
            "--prefix, or pass --take-over"
        )


def _read(store: Store) -> dict[str, Any] | None:
    try:
        there: dict[str, Any] = json.loads(store.read(layout.OWNER))
    except FileNotFoundError:
        return None
    return there


def _entry(owner: str) -> bytes:
    return json.dumps({"format": 1, "owner": owner, "at": time.time()}).encode()


def _ended_here(owner: str) -> bool:
    """Whether the owner was a process `host:pid` of this machine that is gone."""
    host, _, pid = owner.rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
