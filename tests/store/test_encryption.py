"""Server-side encryption: what every kind of write really asks the S3 server for, read off the wire."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medkd.store.files import open_store

KEY = "arn:aws:kms:eu-central-1:123456789012:key/clinic"
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": KEY}


class _Recorder(BaseHTTPRequestHandler):
    """As much of S3 as writes need; keeps what each request said."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen.append((self.command, self.path, headers))
        body = b""
        if self.command == "POST" and re.search(r"\?uploads", self.path):
            body = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
        elif self.command == "POST":
            body = b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET = _answer  # noqa: N815 - names that http.server looks for

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def wire() -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    """An S3 server's URL, and the requests that it got."""
    pytest.importorskip("s3fs")
    handler = type("Recorder", (_Recorder,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.mark.parametrize("encryption", [KMS, {"ServerSideEncryption": "AES256"}], ids=["kms", "aes"])
def test_every_write_asks_for_the_encryption_that_was_set(wire, tmp_path: Path, encryption: dict[str, str]) -> None:
    url, seen = wire
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": url, "region_name": "eu-central-1"},
        "s3_additional_kwargs": encryption,
    }
    store = open_store("s3://bucket/run", options)
    assert store.create("journal/000000.jsonl.gz", b"1")
    store.replace("progress.json", b"2")
    store.sub("students").replace("x", b"3")
    large = tmp_path / "model" / "weights.bin"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(101 << 20)
    store.upload(large.parent, "model")
    writes = [
        (method, path, headers)
        for method, path, headers in seen
        if (method == "PUT" and "partNumber" not in path) or (method == "POST" and re.search(r"\?uploads", path))
    ]
    assert [method for method, _, _ in writes] == ["PUT", "PUT", "PUT", "POST"]
    for _, path, headers in writes:
        assert headers.get("x-amz-server-side-encryption") == encryption["ServerSideEncryption"], path
        assert headers.get("x-amz-server-side-encryption-aws-kms-key-id") == encryption.get("SSEKMSKeyId"), path
    assert writes[0][2]["if-none-match"] == "*"
