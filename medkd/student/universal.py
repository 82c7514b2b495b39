"""From a checkpoint of some ranks and ZeRO stage to one that any number of ranks and any stage from 1 to 3 can load."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

import deepspeed
import torch
from deepspeed.checkpoint import ds_to_universal

# What holds the states that belong to no parameter: of ZeRO 0 to 2, and of ZeRO 3 on its first rank.
_WHOLE, _PART = "mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt"


def to_universal(checkpoint: Path, target: Path) -> None:
    """Convert DeepSpeed's checkpoint folder, with the parts of all ranks, into its universal form."""
    arguments = Namespace(
        input_folder=str(checkpoint),
        output_folder=str(target),
        # In this process: others would be forked beside the threads of the ranks' communication.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with redirect_stdout(sys.stderr):
        ds_to_universal.main(arguments)
    _for_any_stage(target)


def _for_any_stage(target: Path) -> None:
    """Complete what DeepSpeed converts for the saved stage alone: names, steps, and the form of optimizer states."""
    for name, other in ((_WHOLE, _PART), (_PART, _WHOLE)):
        if not (target / name).exists():
            shutil.copyfile(target / other, target / name)
    shared_path = target / "zero" / "optimizer_state.pt"
    shared = torch.load(shared_path, weights_only=False)
    folders = [file.parent for file in (target / "zero").rglob("fp32.pt")]
    if "optimizer_state_dict" in shared:  # of stage 3
        step = next(iter(shared["optimizer_state_dict"]["state"].values()))["step"]
        for folder in folders:
            for state in ("fp32", "exp_avg", "exp_avg_sq"):
                torch.save({"param": torch.load(folder / f"{state}.pt", weights_only=True)}, folder / f"{state}.pt")
            torch.save(step, folder / "step.pt")
    else:
        step = next(torch.load(folder / "step.pt", weights_only=False) for folder in folders if (folder / "step.pt").exists())
    groups = [{**group, "params": []} for group in shared["param_groups"]]
    whole = {key: value for key, value in shared.items() if key != "fp32_flat_groups"}
    whole |= {
        "param_groups": groups,
        "optimizer_state_dict": {"state": {0: {"step": step}}, "param_groups": groups},
        "ds_version": deepspeed.__version__,
    }
    torch.save(whole, shared_path)
