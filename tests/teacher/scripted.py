"""A real HTTP server on a real socket that answers each request by a script, down to single bytes, resets and silences.

    with ScriptedTeacher([answer(429, headers={"retry-after": "1"}), completion("hello")]) as server:
        ...                                  # the first request gets a 429, all later ones the last entry
        assert len(server.requests) == 2

An entry is one step or a list of steps: bytes to send, a `Pause`, `RESET` or `CLOSE`. A callable is asked for each request.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medkd.config import Limits, Prices, TeacherConfig


@dataclass(frozen=True)
class Pause:
    """Say nothing for so many seconds, or until the server closes."""

    seconds: float


RESET = "reset"
"""Break the connection with a TCP reset."""
CLOSE = "close"
"""End the connection in an orderly way."""

Step = bytes | Pause | str
Entry = Step | Sequence[Step]


@dataclass
class Received:
    """One request as it arrived. Times are monotonic seconds."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(status: int = 200, body: Any = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP answer; a body that is not bytes is written as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + raw


def completion_body(text: str | None = "hello", finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    """The body of an OpenAI completion with usage."""
    return {
        "id": "chatcmpl-1",
        "model": "served-1",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500},
        **more,
    }


def completion(text: str | None = "hello", finish: str | None = "stop", **more: Any) -> bytes:
    return answer(200, completion_body(text, finish, **more), {"x-request-id": "req-1"})


def error(status: int, code: str | int | None = None, message: str = "no", headers: Mapping[str, str] | None = None) -> bytes:
    return answer(status, {"error": {"message": message, "type": None, "param": None, "code": code}}, headers)


@dataclass
class ScriptedTeacher:
    script: Sequence[Entry] | Callable[[int, Received], Entry]
    requests: list[Received] = field(default_factory=list)
    peak: int = 0
    """Requests under way at the same moment at most."""
    tls: ssl.SSLContext | None = None
    """Speak TLS with this server context."""

    def __enter__(self) -> ScriptedTeacher:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connections: list[socket.socket] = []
        self._under_way = 0
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1" if self.tls is None else f"https://localhost:{self.port}/v1"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(sock)
            threading.Thread(target=self._serve, args=(sock, len(self._connections)), daemon=True).start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rb") as stream:
                while (received := _read(stream, connection)) is not None and self._answer(sock, received):
                    pass
        except (OSError, ValueError):
            return  # the client or the end of the test broke the connection, or it speaks no HTTP

    def _answer(self, sock: socket.socket, received: Received) -> bool:
        """Play the entry of this request; returns whether the connection lives on."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(received)
            self._under_way += 1
            self.peak = max(self.peak, self._under_way)
        try:
            entry = self.script(number, received) if callable(self.script) else self.script[min(number, len(self.script) - 1)]
            steps = [entry] if isinstance(entry, bytes | Pause | str) else entry
            return all(self._play(sock, step) for step in steps)
        finally:
            with self._lock:
                self._under_way -= 1

    def _play(self, sock: socket.socket, step: Step) -> bool:
        if isinstance(step, bytes):
            sock.sendall(step)
        elif isinstance(step, Pause):
            self._closing.wait(step.seconds)
        elif step == RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        else:
            sock.shutdown(socket.SHUT_RDWR)
        return not isinstance(step, str)


def _read(stream: Any, connection: int) -> Received | None:
    start = stream.readline().decode("latin-1").split(" ")
    if len(start) != 3:
        return None
    method, path, _ = start
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Received(connection, method, path, headers, body, time.monotonic())


def teacher(server: ScriptedTeacher | None = None, **changes: Any) -> TeacherConfig:
    """A priced OpenAI-compatible teacher without a key, at `server`."""
    settings: dict[str, Any] = {
        "protocol": "openai",
        "base_url": server.url if server else "http://localhost:1/v1",
        "model": "teacher-1",
        "auth": "none",
        "limits": Limits(max_concurrency=8),
        "prices": Prices(input=1.0, output=2.0),
        **changes,
    }
    return TeacherConfig(**settings)
