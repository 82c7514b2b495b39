from __future__ import annotations

import socket
import threading
import time

import pytest

from medkd.errors import StoppedError, UnreachableError
from medkd.student.gang import Gang, gang_of, meet

UNKNOWN = "flu-train-0.flu-train.invalid"


def test_a_machine_alone_has_no_gang_and_one_of_several_reads_where_to_meet() -> None:
    assert gang_of({}) is None
    assert gang_of({"PET_NNODES": "1"}) is None
    told = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "flu-train-0.flu-train", "PET_MASTER_PORT": "29501"}
    assert gang_of({**told, "PET_RDZV_CONF": "timeout=90"}) == Gang(rank=1, host="flu-train-0.flu-train", port=29501, seconds=90)
    assert gang_of(told).seconds == 1800


def test_others_wait_until_the_first_one_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    returned = threading.Event()

    def wait() -> None:
        meet(Gang(rank=1, host="127.0.0.1", port=port, seconds=60), threading.Event())
        returned.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not returned.wait(1.5)
    with socket.create_server(("127.0.0.1", port)):
        assert returned.wait(60)


def test_the_first_one_needs_only_its_name() -> None:
    meet(Gang(rank=0, host="localhost", port=1, seconds=5), threading.Event())


@pytest.mark.parametrize("rank", [0, 1])
def test_an_unknown_name_is_waited_for_no_longer_than_the_gang_has(rank: int) -> None:
    with pytest.raises(UnreachableError, match=rf"{UNKNOWN} is not known yet"):
        meet(Gang(rank=rank, host=UNKNOWN, port=29500, seconds=0.5), threading.Event())


def test_waiting_ends_when_told_to_stop() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        meet(Gang(rank=1, host=UNKNOWN, port=29500, seconds=600), stop)
    assert time.monotonic() - started < 60
