"""HTTP/1.1 on asyncio streams, as much as the simulator needs: keep-alive, bodies with a length, and broken endings."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import unquote

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
BLANK_LINE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request. Header names are in lower case; `path` has no query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


Travels = Literal[
    "whole", "cut", "cut_chunked", "cut_no_length", "reset", "hang", "blank_lines", "blank_forever", "idle_close", "hints", "drip"
]
TRAVELS: Mapping[str, Travels] = {
    "reset_before": "reset",
    "reset_after": "reset",
    "cut_body": "cut",
    "cut_chunked": "cut_chunked",
    "cut_no_length": "cut_no_length",
    "hang": "hang",
    "blank_lines": "blank_lines",
    "blank_lines_forever": "blank_forever",
    "idle_close": "idle_close",
    "early_hints": "hints",
    "dripping_headers": "drip",
}
"""How a reply travels under each fault of the line."""


@dataclass(frozen=True, kw_only=True)
class HttpReply:
    """One reply and how it travels.

    `cut` announces the whole length and ends half-way, `cut_chunked` ends within the chunks, `cut_no_length` announces no
    length, so that only the text shows that it is half. `reset` sends nothing and resets the connection, `hang` never answers,
    `drip` sends a head that never ends. `blank_lines` sends the head at once and blank lines before the body, `blank_forever`
    nothing else. `hints` sends a 103 first; `idle_close` closes the connection after the reply without having said so.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    travels: Travels = "whole"


class BadRequestError(Exception):
    """What came is no HTTP request this server can read; the message is for the client."""


async def read_request(reader: asyncio.StreamReader) -> HttpRequest | None:
    """The next request of a connection, None when the client has closed it; BadRequestError for what is no HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError("request head too large") from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequestError("malformed request line")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        raise BadRequestError("chunked requests are not taken; send a Content-Length")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise BadRequestError("bad Content-Length")
    try:
        body = await reader.readexactly(int(length)) if length != "0" else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    path, _, query = parts[1].partition("?")
    return HttpRequest(method=parts[0], path=unquote(path), headers=headers, body=body, query=query)


async def write_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: HttpReply) -> bool:
    """Send a reply the way it travels; says whether the connection can go on."""
    half = reply.body[: len(reply.body) // 2]
    length = f"content-length: {len(reply.body)}"
    match reply.travels:
        case "reset":
            _reset(writer)
            return False
        case "hang":
            await reader.read()
            return False
        case "drip":
            writer.write(_head(reply, "x-drip: ").removesuffix(b"\r\n\r\n"))
            return await _write_until_gone(reader, writer, b".")
        case "blank_forever":
            writer.write(_head(reply, "transfer-encoding: chunked"))
            return await _write_until_gone(reader, writer, b"1\r\n\n\r\n")
        case "cut":
            writer.write(_head(reply, length) + half)
        case "cut_chunked":
            writer.write(_head(reply, "transfer-encoding: chunked") + f"{len(half):x}\r\n".encode() + half + b"\r\n")
        case "cut_no_length":
            writer.write(_head(reply, "connection: close") + half)
        case "blank_lines":
            await _write_blank_lines(writer, _head(reply, f"content-length: {len(reply.body) + len(_BLANK_LINES)}"))
            writer.write(reply.body)
        case "hints":
            hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
            writer.write(hints + _head(reply, length) + reply.body)
        case _:
            writer.write(_head(reply, length) + reply.body)
    await writer.drain()
    return reply.travels in ("whole", "blank_lines", "hints")


_BLANK_LINES = b"\n\n\n"


def _head(reply: HttpReply, length: str) -> bytes:
    """The head; `length` is the line that tells how the body ends."""
    headers = {"content-type": reply.content_type, **reply.headers}
    lines = [
        f"HTTP/1.1 {reply.status} {_phrase(reply.status)}",
        *(f"{name}: {value}" for name, value in headers.items()),
        length,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"


async def _write_blank_lines(writer: asyncio.StreamWriter, head: bytes) -> None:
    writer.write(head)
    for index in range(len(_BLANK_LINES)):
        await asyncio.sleep(BLANK_LINE_SECONDS)
        writer.write(_BLANK_LINES[index : index + 1])
        await writer.drain()


async def _write_until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> bool:
    """Send a piece ten times a second until the client has had enough."""
    gone = asyncio.ensure_future(reader.read())
    try:
        while not gone.done():
            writer.write(piece)
            await writer.drain()
            await asyncio.wait((gone,), timeout=BLANK_LINE_SECONDS)
    finally:
        gone.cancel()
    return False


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the client sees a reset: lingering for zero seconds drops what is unsent."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
