"""The processes of one training, as `torchrun` numbers them, and the folder through which those of a machine meet. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medkd.errors import ConfigError, MedkdError

FOLDER_VARIABLE = "MEDKD_RANKS_FOLDER"
"""Environment variable by which the launcher tells its ranks their shared folder."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Which rank this process is."""

    rank: int
    """Among all; 0 writes what is written once."""
    local_rank: int
    """Among those of this machine; also the number of its GPU."""
    world_size: int
    local_world_size: int
    folder: Path
    """Scratch space that all ranks of this machine share; the launcher removes it."""


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """This process's rank; ConfigError where `launch_training` did not start it."""
    try:
        return Ranks(
            rank=int(environment["RANK"]),
            local_rank=int(environment["LOCAL_RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_world_size=int(environment["LOCAL_WORLD_SIZE"]),
            folder=Path(environment[FOLDER_VARIABLE]),
        )
    except KeyError as error:
        raise ConfigError(f"{error.args[0]}: not set, though RANK is; start ranks with `medkd train`, not by hand") from None


@contextmanager
def report_exit(ranks: Ranks) -> Iterator[None]:
    """Leave this rank's exit code for the launcher, as `torchrun` itself only tells that some rank failed."""
    code = 1
    try:
        yield
        code = 0
    except MedkdError as error:
        code = error.exit_code
        raise
    finally:
        (ranks.folder / f"exit-{ranks.rank}").write_text(str(code))


def recorded_exits(folder: Path) -> list[int]:
    """The exit codes that ranks left; a killed rank leaves none."""
    return [int(file.read_text()) for file in folder.glob("exit-*")]
