"""A namespace for each test on the cluster of KUBECONFIG, with or without the development services in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.cluster.tools import Space, apply_dev, new_space, require_cluster

TEST_SECONDS = 600
"""Pods start and end in these tests, on machines that have other work, too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    space = getattr(item, "funcargs", {}).get("space")
    if report.when == "call" and report.failed and space is not None:
        report.sections.append((f"namespace {space.name}", space.story()))
    return report


@pytest.fixture(scope="session")
def cluster() -> None:
    """A cluster that answers, and the tools for it."""
    require_cluster()


@pytest.fixture
def space(cluster: None) -> Iterator[Space]:
    """An empty namespace that enforces Pod Security `restricted`. Where the test fails, what happened in it is reported."""
    with new_space(f"medkd-{uuid.uuid4().hex[:8]}") as made:
        yield made


@pytest.fixture
def dev(space: Space) -> Space:
    """The same namespace with an S3 server and the simulated teacher that answer."""
    apply_dev(space)
    return space


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Shows progress and figures of a test that takes minutes, while it runs."""
    started = time.monotonic()

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n[{time.monotonic() - started:4.0f} s] {text}", end="", flush=True)

    return show
