"""A shard under one fault of each kind; the whole menu is in `tests/chaos/test_fault_menu.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.fault_menu import courses, serve

MENU = {course.spec: course for course in courses()}
PICKED = [
    ("rate_limit_ms@3,rate_limit_ms@12-15,rate_limit_ms@30", "openai"),
    ("monthly_usage_limit@12-", "anthropic"),
    ("governor@12-", "openai"),
    ("redirect@12-", "anthropic"),
    ("reset_after@7,reset_after:0.1", "openai"),
    ("cut_chunked@7,cut_chunked:0.1", "anthropic"),
    ("idle_close:0.2", "openai"),
    ("duplicate_keys:0.3", "anthropic"),
    ("finish_null:0.2", "openai"),
    ("thinking_first:0.2", "anthropic"),
]


@pytest.mark.parametrize(("spec", "protocol"), PICKED)
def test_a_shard_ends_complete_or_stops_as_it_should(tmp_path: Path, spec: str, protocol: str) -> None:
    assert serve(MENU[spec], protocol, 20, tmp_path).problems == []
