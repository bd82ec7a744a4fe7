"""What a network costs: parameters, and floating-point operations of one frame. Nothing is computed for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hmhi.config import ModelConfig
from hmhi.models.build import build_backbone, build_model
from hmhi.models.hmhi_net import HMHINet

PUBLISHED_BACKBONE = "mit_b2"
"""Of the parameter counts in the HMHI-Net paper, which names MiT-b1."""


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the network as it is built here."""
    with torch.device("meta"):
        return _parameters(build_model(config))


def count_parameters_as_published(config: ModelConfig) -> int:
    """Parameters as HMHI-Net's Tables 3 and 4 count them.

    Every count in the paper is that of MiT-b2 with flow adapters, although its text says MiT-b1; and each memory
    counts twice the four linear layers of its cross-attention, of which the release keeps a copy that it never uses.
    """
    config = dataclasses.replace(config, backbone=PUBLISHED_BACKBONE)
    with torch.device("meta"):
        channels = build_backbone(config).channels
    unused = sum(4 * (channels[stage - 1] ** 2 + channels[stage - 1]) for stage in config.memory_stages)
    return count_parameters(config) + unused


def count_flops(config: ModelConfig, size: tuple[int, int]) -> int:
    """Floating-point operations of one frame with a full memory, two for each multiply-add.

    Matrix products and convolutions are counted, as `torch.utils.flop_counter` does; a top-k read-out counts its
    scores, and none of the values that it gathers.

    Args:
        config: The network.
        size: Height and width of the frame.
    """
    with torch.device("meta"):
        model = build_model(config).eval()
        assert isinstance(model, HMHINet), "frames of prompted models need masks"
        frame = torch.empty(1, 3, *size)
    memory = None
    written = config.memory_frames * config.memory_interval
    with torch.no_grad():
        for _ in range(written):
            _, memory = model.step(frame, frame, memory)
        with FlopCounterMode(
            display=False, custom_mapping={torch.ops.hmhi.topk_scores: _topk_flops}
        ) as counter:
            model.step(frame, frame, memory)
    return counter.get_total_flops()


def _topk_flops(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of the search for the best keys, from the shapes (B, N, C) and (B, M, C)."""
    return 2 * q[0] * q[1] * k[1] * q[2]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
