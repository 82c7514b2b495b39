"""The simulated teacher: OpenAI chat completions and Anthropic messages over HTTP, with limits, faults and honest counts.

`Server` runs in a thread of its own, for tests; `serve_forever` holds the process until SIGTERM or Ctrl-C. Beside the
vendors' paths, `GET /stats` tells the counts, `GET /billed` the billed completions per request body, and `PUT /faults` sets
the faults while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable

from medkd.simulator.faults import parse_faults
from medkd.simulator.frontdesk import FrontDesk
from medkd.simulator.options import SimulatorOptions
from medkd.simulator.wire import MAX_HEAD_BYTES, BadRequestError, HttpReply, read_request, write_reply

__all__ = ["Server", "SimulatorOptions", "serve_forever"]


async def _converse(desk: FrontDesk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection, one after the other, until either side ends it."""
    try:
        while True:
            try:
                request = await read_request(reader)
            except BadRequestError as error:
                await write_reply(reader, writer, HttpReply(status=400, body=str(error).encode(), content_type="text/plain"))
                return
            if request is None:
                return
            goes_on = await desk.serve(request, lambda reply: write_reply(reader, writer, reply))
            if not goes_on or not request.keep_alive:
                return
    except ConnectionError:
        return
    finally:
        writer.close()


async def _serve(options: SimulatorOptions, on_ready: Callable[[str, FrontDesk], None], stop: asyncio.Event) -> None:
    """Serve until `stop` is set; open connections are then dropped."""
    desk = FrontDesk(options)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with contextlib.suppress(asyncio.CancelledError):
            await _converse(desk, reader, writer)
        connections.discard(task)

    server = await asyncio.start_server(connected, options.host, options.port, limit=MAX_HEAD_BYTES, backlog=1024)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        on_ready(f"http://{host}:{port}", desk)
        await stop.wait()
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        desk.close()


def serve_forever(options: SimulatorOptions, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` gets the URL once the port answers. OSError when the port is taken."""
    parse_faults(options.faults)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await _serve(options, lambda url, desk: on_ready(url), stop)

    asyncio.run(main())


class Server:
    """The same server in a thread: `with Server(options) as server: ... server.url`. `stop()` may be called twice."""

    def __init__(self, options: SimulatorOptions) -> None:
        parse_faults(options.faults)
        self._options = options
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failure = error
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await _serve(self._options, self._started, self._stop)

    def _started(self, url: str, desk: FrontDesk) -> None:
        self.url = url
        """Base without `/v1`."""
        self.counters = desk.ledger
        self._ready.set()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
