"""Which arithmetic a training run's steps are done in."""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def in_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether steps on a device compute in bfloat16: as asked for, and by "auto" where the processor has it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
