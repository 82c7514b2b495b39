"""What every image keeps, read from its Dockerfile: no root, signals that reach the program, labels, a base of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
LABELS = {"title", "description", "version", "revision"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
class TestImage:
    def test_it_runs_as_nobody_and_its_program_is_process_one(self, path: Path) -> None:
        last = dict(instructions(path))
        assert last["USER"] == "10001:10001"
        assert isinstance(json.loads(last["ENTRYPOINT"]), list), "a shell would keep SIGTERM to itself"
        assert "CMD" not in last

    def test_it_says_what_it_is_and_builds_on_a_base_that_can_be_named(self, path: Path) -> None:
        named = [rest for name, rest in instructions(path) if name == "LABEL"]
        assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", "".join(named))) == LABELS
        assert instructions(path)[0][0] == "ARG" and instructions(path)[0][1].startswith("BASE=")
        assert {rest.split()[0] for name, rest in instructions(path) if name == "FROM"} == {"${BASE}"}

    def test_every_package_is_pinned(self, path: Path) -> None:
        for name, rest in instructions(path):
            for command in rest.split("&&") if name == "RUN" else ():
                installs = "pip install" in command and "--no-deps" not in command and not command.strip().endswith(" uv")
                assert not installs or "-c constraints.txt" in command, command


def test_the_build_context_holds_no_more_than_the_images_copy() -> None:
    kept = {line[1:].split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for path in DOCKERFILES
        for name, rest in instructions(path)
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert kept == copied
