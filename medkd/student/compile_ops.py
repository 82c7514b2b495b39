"""Compiles DeepSpeed's CPU communication operator ahead of time: `python -m medkd.student.compile_ops`.

DeepSpeed compiles it when ranks on CPUs first meet, which takes one to two minutes; set-up and image builds run this once
instead. On a machine with a GPU there is nothing to compile.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path


def operator_variables(environment: Mapping[str, str], scratch: Path | None = None) -> dict[str, str]:
    """Environment variables with which compiled operators are found, and `ninja`, which torch asks each time.

    torch takes a lock beside the operators that it loads. Where they lie read-only, as in an image, they are copied to `scratch`.
    """
    # An environment that is not activated has no `ninja` on its PATH; another one, of another version, compiles all anew.
    variables = {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), environment.get("PATH", os.defpath)])}
    # Beside the packages that they were compiled for: torch's own folder is shared by all environments of a user, which
    # then overwrite one another's.
    folder = Path(sys.prefix) / "torch_extensions"
    if "TORCH_EXTENSIONS_DIR" not in environment and (folder.exists() or os.access(sys.prefix, os.W_OK)):
        variables["TORCH_EXTENSIONS_DIR"] = str(folder)
    compiled = Path({**environment, **variables}.get("TORCH_EXTENSIONS_DIR", ""))
    if scratch and compiled.is_absolute() and compiled.is_dir() and not os.access(compiled, os.W_OK):
        # With their times, by which ninja knows that they need not be compiled again.
        variables["TORCH_EXTENSIONS_DIR"] = str(shutil.copytree(compiled, scratch / "operators", dirs_exist_ok=True))
    return variables


def main() -> int:
    """Compile, and say how long it took; 1 where there is no compiler."""
    os.environ.update(operator_variables(os.environ))
    from deepspeed.accelerator import get_accelerator

    started = time.monotonic()
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None:
        print("DeepSpeed needs no CPU operator here")
        return 0
    try:
        builder.load(verbose=False)
    except (RuntimeError, OSError) as error:
        print(f"DeepSpeed's CPU operator does not compile ({type(error).__name__}); is g++ installed?", file=sys.stderr)
        return 1
    print(f"DeepSpeed's CPU operator is compiled ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
