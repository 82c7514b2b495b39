"""A hub of one repository over real HTTP: what Hugging Face's client asks of it, and a gate that wants a token."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves the files of a folder as the repository `name`; `with Hub(folder, "org/model") as hub`."""

    def __init__(self, folder: Path, name: str, token: str | None = None) -> None:
        self.folder = folder
        self.name = name
        self.token = token
        self.fetched: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        """Files whose next requests are answered 503, and how often."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listing(self) -> bytes:
        files = [_listed(path, self.folder) for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return json.dumps({"id": self.name, "modelId": self.name, "sha": COMMIT, "tags": [], "siblings": files}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(self.path.partition("?")[0])
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.answer(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
                elif path in (f"/api/models/{hub.name}", f"/api/models/{hub.name}/revision/main"):
                    self.answer(200, hub.listing())
                elif path.startswith(f"/api/models/{hub.name}/revision/"):
                    self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
                elif path.startswith(f"/{hub.name}/resolve/{COMMIT}/"):
                    self.file(path.removeprefix(f"/{hub.name}/resolve/{COMMIT}/"))
                else:
                    self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

            do_HEAD = do_GET  # noqa: N815

            def file(self, name: str) -> None:
                if hub.broken[name] > 0:
                    hub.broken[name] -= 1
                    self.answer(503, b"")
                    return
                if self.command == "GET":
                    hub.fetched[name] += 1
                data = (hub.folder / name).read_bytes()
                self.answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

            def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        return Handler


def _listed(path: Path, folder: Path) -> dict[str, object]:
    """A file as the hub lists it: large ones with their hash."""
    data, name = path.read_bytes(), path.relative_to(folder).as_posix()
    listed: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
    if path.suffix in (".safetensors", ".bin"):
        listed["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return listed
