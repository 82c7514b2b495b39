"""Each fault by itself, on a small shard; `make bench-teacher` does the same with larger ones in both protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.fault_menu import PROTOCOLS, Course, courses, serve

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


MENU = [(course, list(PROTOCOLS)[number % 2]) for number, course in enumerate(courses())]
"""The protocols take turns; the benchmark serves each fault in both."""


@pytest.mark.parametrize(("course", "protocol"), MENU, ids=[course.spec for course, _ in MENU])
def test_a_shard_ends_complete_or_stops_as_it_should(tmp_path: Path, course: Course, protocol: str) -> None:
    assert serve(course, protocol, 20, tmp_path).problems == []
