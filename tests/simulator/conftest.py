"""Servers for the tests of the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from medkd.simulator.server import Server, SimulatorOptions


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers with the given options on free ports, and stops them after the test."""
    servers: list[Server] = []

    def start(**options: Any) -> Server:
        servers.append(Server(SimulatorOptions(port=0, **options)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
