"""Requests as a pipeline would send them, and the plainest way to send them."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from medkd.records import PATIENT_RECORD

CASE = """Topic: {topic}
Patient's mood: {mood}
Exchanges: {exchanges}
Patient: {age}-year-old {sex}
Way of speaking: {style}
Case: {case}"""


def asked(topic: str = "hypertension", **changes: Any) -> str:
    """The user message of a conversation call."""
    lines = {"mood": "anxious", "exchanges": 6, "age": 54, "sex": "female", "style": "rambling", "case": "7f3a9c21"}
    return CASE.format(topic=topic, **{**lines, **changes})


def writing(topic: str = "hypertension", *, seed: int = 7, **changes: Any) -> dict[str, Any]:
    """OpenAI body that asks for a conversation."""
    messages = [{"role": "system", "content": "Plain text only."}, {"role": "user", "content": asked(topic, **changes)}]
    return {"model": "clinic-1", "messages": messages, "seed": seed}


def extracting(conversation: str, **changes: Any) -> dict[str, Any]:
    """OpenAI body that asks for the record of a conversation."""
    schema = {"name": "patient_record", "strict": True, "schema": PATIENT_RECORD.json_schema()}
    messages = [
        {"role": "system", "content": "Answer in JSON."},
        {"role": "user", "content": f"Extract.\n<conversation>\n{conversation}\n</conversation>"},
    ]
    form = {"type": "json_schema", "json_schema": schema}
    return {"model": "clinic-1", "messages": messages, "response_format": form, **changes}


class Reply:
    """Status, headers in lower case, raw body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return str(self.json()["choices"][0]["message"]["content"])


def send(url: str, path: str, body: Any = None, timeout: float = 10, **headers: str) -> Reply:
    """One HTTP exchange; GET without a body. Header names are given with underscores."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(url + path, data=data, headers=named), timeout=timeout) as reply:
            return Reply(reply.status, {key.lower(): value for key, value in reply.headers.items()}, reply.read())
    except HTTPError as error:
        return Reply(error.code, {key.lower(): value for key, value in error.headers.items()}, error.read())


def send_and_leave(url: str, path: str, body: Any) -> None:
    """Send a request and vanish without reading the reply."""
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
