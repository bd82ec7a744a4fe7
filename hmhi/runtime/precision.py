"""How a network runs: autocast by the names that configs use, memory layout, compilation."""

from __future__ import annotations

import torch
from torch import nn

from hmhi.config import Precision
from hmhi.models.base import VideoModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context in which matrix products and convolutions run in ``precision``; ``fp32`` changes nothing."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def amp_precision(device: torch.device) -> Precision:
    """The 16-bit type that a device is fast in; ``fp32`` where it has none."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return "bf16"
    return "fp32"


def use_channels_last(model: nn.Module) -> None:
    """Lay a model's convolution weights out as inference reads them: channels last. In place; same numbers."""
    model.to(memory_format=torch.channels_last)


def compile_parts(model: VideoModel) -> None:
    """Have the parts that a model names compiled at their next call, in place."""
    for part in model.parts_to_compile():
        part.compile()
