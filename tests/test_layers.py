"""The layering of the package and the single addresses of what touches the world, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medkd

PACKAGE = Path(medkd.__file__).parent

BASE = {"config", "samples", "records", "rules", "schema_documents", "errors", "telemetry"}
PARTS = {"teacher", "store", "quality", "student", "simulator", "cluster"}
TOP = {"commands", "local", "driver"}
# What a room may import of the package, itself aside.
ALLOWED = {
    **dict.fromkeys(BASE | PARTS, BASE),
    # Tokens, checkpoints and models are larger than memory wants: the room that makes them streams them to the store itself.
    "student": BASE | {"store"},
    "stages": BASE | PARTS - {"simulator", "cluster"},
    "local": BASE | PARTS - {"simulator", "cluster"} | {"stages"},
    "driver": BASE | PARTS - {"simulator"} | {"stages"},
    "commands": BASE | PARTS | {"stages", "local", "driver"},
    "__main__": {"commands"},
    "__init__": set(),
}

# Libraries with the only rooms that may import them.
ADDRESSES = {
    "requests": {"teacher"},
    "urllib3": {"teacher", "cluster"},
    "fsspec": {"store"},
    "s3fs": {"store"},
    "pyarrow": {"store"},
    "torch": {"student"},
    "transformers": {"student"},
    "tokenizers": {"student"},
    "huggingface_hub": {"student"},
    "deepspeed": {"student"},
    "peft": {"student"},
    "liger_kernel": {"student"},
    "kubernetes": {"cluster"},
}

# Programs of their own, which set-up and image builds start: they may read their environment.
PROGRAMS = {PACKAGE / "student" / "compile_ops.py"}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """The first part of a module's name below the package: a room, or a file beside the rooms."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of a file, inside functions and for type checkers, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its room"
            assert node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(PACKAGE.parent)}:{line}"


def test_every_module_belongs_to_a_known_room() -> None:
    assert {room_of(path) for path in FILES} <= set(ALLOWED)


def test_layers_point_one_way_and_parts_know_nothing_of_one_another() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        for line, name in imports_of(path):
            package, _, rest = name.partition(".")
            imported = rest.split(".")[0]
            if package == "medkd" and imported not in ALLOWED[room] | {room, "__version__"}:
                wrong.append(f"{where(path, line)}: {room} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("library", ADDRESSES)
def test_a_library_that_touches_the_world_has_a_single_address(library: str) -> None:
    wrong = [
        where(path, line)
        for path in FILES
        if room_of(path) not in ADDRESSES[library]
        for line, name in imports_of(path)
        if name.split(".")[0] == library
    ]
    assert wrong == []


def test_the_simulator_is_known_to_the_command_line_only() -> None:
    knowing = {room_of(path) for path in FILES for _, name in imports_of(path) if name.startswith("medkd.simulator")}
    assert knowing <= {"simulator", "commands"}


def test_environment_and_arguments_are_read_by_the_command_line_only() -> None:
    wrong = []
    for path in FILES:
        if room_of(path) == "commands" or path in PROGRAMS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                read = f"{node.value.id}.{node.attr}"
                if read in ("os.environ", "os.environb", "os.getenv", "os.putenv", "sys.argv"):
                    wrong.append(f"{where(path, node.lineno)}: {read}")
        wrong += [
            f"{where(path, line)}: {name}"
            for line, name in imports_of(path)
            if name in ("os.environ", "os.getenv", "sys.argv", "argparse")
        ]
    assert wrong == []


def test_the_base_does_no_input_or_output_beside_the_log_and_the_configuration_file() -> None:
    allowed = {"config": {"pathlib", "importlib"}, "telemetry": {"sys"}}
    touching = {"os", "io", "sys", "pathlib", "importlib", "socket", "subprocess", "threading", "tempfile", "shutil"}
    wrong = [
        f"{where(path, line)}: {name}"
        for path in FILES
        if room_of(path) in BASE
        for line, name in imports_of(path)
        if name.split(".")[0] in touching - allowed.get(room_of(path), set())
    ]
    assert wrong == []
