"""From a checkpoint of some ranks and ZeRO stage to one that any number of ranks and any stage can load.

DeepSpeed converts what ZeRO 1 to 3 split, and loads it into these stages. Stage 0 splits nothing and has no part in that: its
states are put into the same folders, and taken from them, here.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.checkpoint import ds_to_universal
from torch import Tensor

from medkd.errors import ConfigError

NAMES_FILE = "trained_names.pt"
"""Beside the states of stage 0: the names of the trained parameters in their order, by which their states are told."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
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


def trained_names(engine: Any) -> list[str]:
    """The trained parameters of stage 0, in the order in which its optimizer numbers them."""
    names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    return [names[id(weights)] for weights, _ in _masters(engine.optimizer)]


def unsplit_to_universal(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint of stage 0 in the universal form; ConfigError where it does not say whose its states are."""
    if not (checkpoint / NAMES_FILE).exists():
        raise ConfigError(
            f"zero_stage: the checkpoint {checkpoint.name} of stage 0 was saved by an older medkd, which noted no names; go on "
            "with stage 0, or delete it to start again"
        )
    states = torch.load(checkpoint / _WHOLE, weights_only=False)
    optimizer = states["optimizer"]
    # In bf16 the optimizer works on copies in fp32, and its own states lie one level deeper.
    moments = optimizer.get("optimizer_state_dict", optimizer)
    copies = [copy for group in optimizer.get("fp32_groups", []) for copy in group]
    step = next(iter(moments["state"].values()))["step"]
    for number, name in enumerate(torch.load(checkpoint / NAMES_FILE)):
        folder = target / "zero" / name
        folder.mkdir(parents=True)
        weights = copies[number] if copies else states["module"][name]
        torch.save({"param": weights}, folder / "fp32.pt")
        for moment in _MOMENTS:
            # What never had a gradient has no moments yet.
            found = moments["state"].get(number, {}).get(moment, torch.zeros_like(weights))
            torch.save({"param": found}, folder / f"{moment}.pt")
        torch.save(step, folder / "step.pt")
    torch.save({"param_groups": moments["param_groups"]}, target / "zero" / "optimizer_state.pt")
    torch.save({**states, "module": {}, "optimizer": None}, target / _WHOLE)
    _for_any_stage(target)


def load_unsplit(engine: Any, universal: Path) -> None:
    """Put weights and optimizer states of a universal checkpoint into an engine of stage 0."""
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for name, (weights, master) in zip(trained_names(engine), _masters(engine.optimizer), strict=True):
        folder = universal / "zero" / name
        master.data.copy_(_read(folder / "fp32.pt", master))
        weights.data.copy_(master.data)
        state = {moment: _read(folder / f"{moment}.pt", master) for moment in _MOMENTS}
        optimizer.state[master] = {"step": _step(folder, master), **state}


def _masters(optimizer: Any) -> list[tuple[Tensor, Tensor]]:
    """Each trained parameter with what the optimizer of stage 0 works on: itself or, in bf16, its copy in fp32."""
    if hasattr(optimizer, "fp32_groups"):
        groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        return [pair for low, high in groups for pair in zip(low, high, strict=True)]
    return [(parameter, parameter) for group in optimizer.param_groups for parameter in group["params"]]


def _read(path: Path, like: Tensor) -> Tensor:
    """A state, of stage 3 flat and perhaps longer than the parameter, in the parameter's shape and on its device."""
    found: Tensor = torch.load(path, weights_only=False)["param"]
    return found.flatten()[: like.numel()].view(like.shape).to(like.device, torch.float32, copy=True)


def _step(folder: Path, like: Tensor) -> Tensor:
    return torch.as_tensor(torch.load(folder / "step.pt", weights_only=False), dtype=torch.float32).to(like.device, copy=True)
