"""Compiles DeepSpeed's CPU communication operator ahead of time: `python -m medkd.student.compile_ops`.

DeepSpeed compiles it when ranks on CPUs first meet, which takes one to two minutes; set-up and image builds run this once
instead. The result lies in torch's extension folder (`TORCH_EXTENSIONS_DIR`, else below the home directory). On a machine
with a GPU there is nothing to compile.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time


def main() -> int:
    """Compile, and say how long it took; 1 where there is no compiler."""
    # torch looks for `ninja` on the PATH, where an environment that is not activated does not have it.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
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
