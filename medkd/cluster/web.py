"""The driver's small HTTP server: `/` the live page, `/status.json`, `/metrics` for Prometheus, `/healthz` for the kubelet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from types import TracebackType

from medkd.cluster.board import Board
from medkd.cluster.metrics import metrics
from medkd.cluster.publish import as_json
from medkd.errors import ConfigError

PLAIN = "text/plain; charset=utf-8"


class Web:
    """Serves what it was last shown, from when it is entered until it is left."""

    def __init__(self, host: str, port: int, healthy: Callable[[], bool]) -> None:
        self._board: Board | None = None
        self._healthy = healthy
        try:
            self._server = ThreadingHTTPServer((host, port), self._handler())
        except OSError as error:
            raise ConfigError(f"--listen {host}:{port}: {error.strerror}; choose another address") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Web:
        threading.Thread(target=self._server.serve_forever, name="web", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def show(self, board: Board) -> None:
        """From here on this is what is served."""
        self._board = board

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a GET."""
        if path == "/healthz":
            return (200, PLAIN, b"ok\n") if self._healthy() else (503, PLAIN, b"the driver's loop does not turn\n")
        if path == "/":
            return 200, "text/html; charset=utf-8", page()
        if path not in ("/status.json", "/metrics"):
            return 404, PLAIN, b"not found; there are /, /status.json, /metrics and /healthz\n"
        if self._board is None:
            return 503, PLAIN, b"the driver is starting\n"
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics(self._board).encode()
        return 200, "application/json", as_json(self._board)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                status, kind, body = web.answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *values: object) -> None:
                """Scrapes and probes every few seconds are no news."""

        return Handler


def page() -> bytes:
    """The live page: it asks `/status.json` every few seconds and needs nothing from anywhere else."""
    return resources.files("medkd.cluster").joinpath("page", "index.html").read_bytes()
