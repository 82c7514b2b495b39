"""DeepSpeed's configuration, from a student's. Imports neither torch nor DeepSpeed."""

from __future__ import annotations

from typing import Any

from medkd.config import StudentConfig


def deepspeed_config(
    student: StudentConfig, *, world_size: int, device: str, bf16: bool, universal: bool = False
) -> dict[str, Any]:
    """The whole configuration, without `auto`; pure.

    device: `cpu` or `cuda`. universal: whether the checkpoint that training goes on from comes from other ranks or another stage.
    """
    on_gpu = device == "cuda"
    zero: dict[str, Any] = {
        "stage": student.zero_stage,
        "overlap_comm": on_gpu,
        "contiguous_gradients": on_gpu,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if student.offload_optimizer and on_gpu:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if student.offload_parameters and on_gpu:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        # A pass of documents laid end to end is one item to DeepSpeed.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": student.gradient_accumulation,
        "train_batch_size": student.gradient_accumulation * world_size,
        "gradient_clipping": student.max_gradient_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        # Each machine has a folder of its own, the store is where they meet.
        "checkpoint": {"use_node_local_storage": True, "load_universal": universal},
        "steps_per_print": 2**31,
    }
