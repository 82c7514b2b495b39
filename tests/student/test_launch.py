from __future__ import annotations

import os
from pathlib import Path

import pytest

from medkd.errors import ConfigError, MedkdError, StoppedError
from medkd.student.launch import exit_code, rank_variables, torchrun_command
from medkd.student.ranks import FOLDER_VARIABLE, Ranks, ranks_of, recorded_exits, report_exit

ENVIRONMENT = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("torchrun", "recorded", "expected"),
    [
        (0, [0, 0], 0),
        (1, [78, 75], 78),
        (1, [75, 75], 75),
        (1, [75], 75),
        (1, [1], 75),
        (1, [], 75),
        (1, [1, 75], 1),
        (1, [69, 75], 69),
        (1, [65, 1], 65),
        (-9, [], 75),
    ],
)
def test_the_exit_code_is_the_one_that_somebody_has_to_act_on(torchrun: int, recorded: list[int], expected: int) -> None:
    assert exit_code(torchrun, recorded, ranks=2) == expected


@pytest.mark.parametrize(("error", "code"), [(None, 0), (ConfigError("x"), 78), (StoppedError("x"), 75), (ValueError("x"), 1)])
def test_a_rank_leaves_its_exit_code(error: Exception | None, code: int, tmp_path: Path) -> None:
    ranks = ranks_of({**ENVIRONMENT, FOLDER_VARIABLE: str(tmp_path)})
    assert ranks == Ranks(rank=1, local_rank=1, world_size=4, local_world_size=2, folder=tmp_path)
    try:
        with report_exit(ranks):
            if error:
                raise error
    except (MedkdError, ValueError):
        pass
    assert recorded_exits(tmp_path) == [code]


def test_a_rank_that_was_started_by_hand_is_refused() -> None:
    with pytest.raises(ConfigError, match=FOLDER_VARIABLE):
        ranks_of(ENVIRONMENT)


def test_a_machine_alone_meets_itself_and_one_of_several_is_told_where_to_meet() -> None:
    assert "--standalone" in torchrun_command(["train"], ranks=2, multi_node=False)
    command = torchrun_command(["train", "--log", "json"], ranks=2, multi_node=True)
    assert "--standalone" not in command
    assert command[-5:] == ["--", "medkd", "train", "--log", "json"]


def test_cores_are_shared_among_the_ranks_unless_the_caller_says_how(tmp_path: Path) -> None:
    assert (
        int(rank_variables(1, tmp_path, {})["OMP_NUM_THREADS"]) >= int(rank_variables(64, tmp_path, {})["OMP_NUM_THREADS"]) == 1
    )
    assert "OMP_NUM_THREADS" not in rank_variables(2, tmp_path, {"OMP_NUM_THREADS": "3"})
    assert rank_variables(2, tmp_path, {"PATH": "/x"})["PATH"].endswith(":/x")


def test_operators_that_lie_read_only_are_copied_to_where_torch_can_lock_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, scratch = tmp_path / "compiled", tmp_path / "scratch"
    (compiled / "shm").mkdir(parents=True)
    (compiled / "shm" / "shm.o").write_text("compiled")
    scratch.mkdir()
    environment = {"TORCH_EXTENSIONS_DIR": str(compiled)}
    assert "TORCH_EXTENSIONS_DIR" not in rank_variables(1, scratch, environment)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    copied = Path(rank_variables(1, scratch, environment)["TORCH_EXTENSIONS_DIR"])
    assert copied.is_relative_to(scratch)
    assert (copied / "shm" / "shm.o").stat().st_mtime_ns == (compiled / "shm" / "shm.o").stat().st_mtime_ns
