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

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True, kw_only=True)
class HttpReply:
    """One reply and how it travels.

    `cut` announces the whole length and ends half-way, `reset` sends nothing and resets the connection, `hang` never
    answers, `blank_lines` sends the head at once and blank lines before the body.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    travels: Literal["whole", "cut", "reset", "hang", "blank_lines"] = "whole"


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
    return HttpRequest(method=parts[0], path=unquote(parts[1].partition("?")[0]), headers=headers, body=body)


async def write_reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: HttpReply) -> bool:
    """Send a reply the way it travels; says whether the connection can go on."""
    if reply.travels == "reset":
        _reset(writer)
        return False
    if reply.travels == "hang":
        await reader.read()
        return False
    head = _head(reply)
    if reply.travels == "cut":
        writer.write(head + reply.body[: len(reply.body) // 2])
        await writer.drain()
        return False
    if reply.travels == "blank_lines":
        await _write_blank_lines(writer, head)
        writer.write(reply.body)
    else:
        writer.write(head + reply.body)
    await writer.drain()
    return True


_BLANK_LINES = b"\n\n\n"


def _head(reply: HttpReply) -> bytes:
    blank = len(_BLANK_LINES) if reply.travels == "blank_lines" else 0
    lines = [
        f"HTTP/1.1 {reply.status} {_phrase(reply.status)}",
        f"content-type: {reply.content_type}",
        f"content-length: {len(reply.body) + blank}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
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


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the client sees a reset: lingering for zero seconds drops what is unsent."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
