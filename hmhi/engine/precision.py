"""Autocast by the name that configs use."""

from __future__ import annotations

import torch

from hmhi.config import Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Context in which matrix products and convolutions run in ``precision``; ``fp32`` changes nothing."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")
