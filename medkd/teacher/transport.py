"""One HTTP exchange on pooled connections: bounded by a wall clock and a size, and free of anything that could leak.

`requests` does the work through its adapter alone: a `Session` would read netrc files and proxy variables, follow redirects
with the key in hand, and cost more. What comes back is a value, never an exception of the library, since those carry requests.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

CONNECT_SECONDS = 5.0
MAX_BODY_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_MAX_EARLY_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """A whole HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Failure:
    """No whole answer. `configuration`: none can come like this; `not_sent`: nothing left this machine; `lost`: unknown."""

    kind: Literal["configuration", "not_sent", "lost"]
    reason: str


class Transport:
    """Sends requests for any number of threads."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        threads: int,
        deadline_seconds: float,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._deadline_seconds = deadline_seconds
        self._proxies = dict(proxies) if proxies else None
        self._verify = ca_bundle or True
        self._adapter = _Adapter(max_retries=0, pool_connections=1, pool_maxsize=threads)
        self._watchdog = _Watchdog(deadline_seconds)

    def exchange(
        self, method: Literal["GET", "POST", "DELETE"], path: str, body: bytes | None = None, content_type: str = ""
    ) -> HttpAnswer | Failure:
        """Send one request and read its whole answer, within the deadline. content_type: of the body, if it is not JSON."""
        exchange = _Exchange()
        _current.exchange = exchange
        self._watchdog.watch(exchange)
        try:
            found = self._attempt(self._prepared(method, path, body, content_type))
        finally:
            self._watchdog.release(exchange)
        if exchange.cut:
            return Failure(kind="lost" if exchange.sent else "not_sent", reason="deadline")
        if isinstance(found, Failure) and found.kind == "lost" and not exchange.sent:
            return Failure(kind="not_sent", reason=found.reason)
        return found

    def close(self) -> None:
        """End what is in flight and give back the connections."""
        self._watchdog.close()
        self._adapter.close()

    def _prepared(self, method: str, path: str, body: bytes | None, content_type: str) -> requests.PreparedRequest:
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = method, self._base_url + path, body
        prepared.headers = requests.structures.CaseInsensitiveDict(self._headers)
        if content_type:
            prepared.headers["Content-Type"] = content_type
        if body is not None:
            prepared.headers["Content-Length"] = str(len(body))
        return prepared

    def _attempt(self, prepared: requests.PreparedRequest) -> HttpAnswer | Failure:
        timeout = (min(CONNECT_SECONDS, self._deadline_seconds), self._deadline_seconds)
        try:
            response = self._adapter.send(prepared, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies)
            with contextlib.closing(response):
                body = _limited_body(response)
            if body is None:
                return Failure(kind="lost", reason="too_large")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return HttpAnswer(status=response.status_code, headers=headers, body=body)
        except requests.exceptions.SSLError as error:
            wrong = _is_certificate_problem(error)
            return Failure(kind="configuration", reason="certificate") if wrong else Failure(kind="lost", reason="tls")
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, requests.exceptions.InvalidProxyURL):
            return Failure(kind="configuration", reason="invalid_request")
        except requests.exceptions.Timeout:
            return Failure(kind="lost", reason="timeout")
        except (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError):
            return Failure(kind="lost", reason="connection")


def _limited_body(response: requests.Response) -> bytes | None:
    """The whole body, None if it exceeds the limit."""
    chunks, size = [], 0
    for chunk in response.iter_content(_CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return None
    return b"".join(chunks)


def _is_certificate_problem(error: BaseException) -> bool:
    """Whether a certificate error is at the bottom: it never heals, while any other break of TLS is a break like others."""
    inner = (getattr(error, "reason", None), *error.args)
    return isinstance(error, ssl.CertificateError) or any(
        isinstance(part, BaseException) and _is_certificate_problem(part) for part in inner
    )


class _Exchange:
    """One request under way: which connection carries it, whether anything was sent, whether the watchdog ended it."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.connection: _Watched | None = None
        self.socket: socket.socket | None = None
        self.sent = False
        self.cut = False


_current = threading.local()


class _FinalResponse(http.client.HTTPResponse):
    """Reads past informational answers: http.client takes a 103 Early Hints for the final one."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while 101 < status < 200:
            self._skip_headers()
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason

    def _skip_headers(self) -> None:
        for _ in range(_MAX_EARLY_LINES):
            if self.fp.readline(_CHUNK_BYTES).strip() == b"":
                return
        raise http.client.HTTPException("endless early headers")


class _Watched(HTTPConnection):
    """Tells the exchange of its thread which connection it uses and when something is sent."""

    response_class = _FinalResponse
    exchange: _Exchange | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._serve_current()
        super().request(*args, **kwargs)

    def connect(self) -> None:
        self._serve_current()
        super().connect()

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        # Kept by itself: where the answer says `Connection: close`, the connection lets go of its socket while it is read.
        _current.exchange.socket = self.sock
        _current.exchange.sent = True
        super().endheaders(*args, **kwargs)

    def _serve_current(self) -> None:
        self.exchange = _current.exchange
        self.exchange.connection = self


class _WatchedTls(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        # A call may be silent for minutes while the teacher thinks; NATs and load balancers forget silent connections.
        kwargs["socket_options"] = [*HTTPConnection.default_socket_options, *_keep_alive_options()]
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def _keep_alive_options() -> list[tuple[int, int, int]]:
    seconds = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # macOS lacks the first
    tuned = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in seconds.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tuned]


class _Watchdog:
    """Shuts the socket of every exchange that outlives the deadline: read timeouts start anew with each byte that drips in."""

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self._changed = threading.Condition()
        self._watched: dict[_Exchange, None] = {}  # in order of their deadlines, since all have the same length
        self._closed = False
        self._thread: threading.Thread | None = None

    def watch(self, exchange: _Exchange) -> None:
        with self._changed:
            exchange.deadline = time.monotonic() + self._deadline_seconds
            self._watched[exchange] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="teacher-deadlines", daemon=True)
                self._thread.start()

    def release(self, exchange: _Exchange) -> None:
        with self._changed:
            self._watched.pop(exchange, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            for exchange in self._watched:
                _cut(exchange)
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for exchange in list(self._watched):
                    if exchange.deadline > now:
                        break
                    # Stays watched: what is cut while still connecting is cut again once it has a socket.
                    _cut(exchange)
                # No exchange that begins from now on is due before this, so none needs to wake us: a wake-up per call is dear.
                first = next(iter(self._watched), None)
                self._changed.wait(self._deadline_seconds if first is None else max(0.1, first.deadline - now))


def _cut(exchange: _Exchange) -> None:
    exchange.cut = True
    connection = exchange.connection
    # A connection that went back to the pool may serve another exchange by now.
    if connection is None or connection.exchange is not exchange:
        return
    sock = exchange.socket or connection.sock
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            # The plain shutdown: the TLS one would drop the state that the reading thread is using.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
