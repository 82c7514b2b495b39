"""One thread for what need not hold up training; what goes wrong there surfaces in the thread that trains."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for


class Background:
    """Runs pieces of work one after the other, in the order in which they were given."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="uploads")
        self._open: list[Future[None]] = []

    def start(self, work: Callable[[], None]) -> None:
        """Queue a piece of work."""
        self._open.append(self._thread.submit(work))

    def done(self) -> bool:
        """Whether nothing is left to do; raises what the work raised."""
        for finished in [future for future in self._open if future.done()]:
            self._open.remove(finished)
            finished.result()
        return not self._open

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for all work, at most this long; whether it is done. Raises what the work raised."""
        wait_for(self._open, timeout=seconds)
        return self.done()
