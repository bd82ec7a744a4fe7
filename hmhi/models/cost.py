"""What a network costs: parameters, and floating-point operations of one frame. Nothing is computed for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hmhi.config import ModelConfig
from hmhi.memory.objects import ObjectState
from hmhi.models.build import build_backbone, build_model
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.prompted import PromptedNet, pad

PUBLISHED_BACKBONE = "mit_b2"
"""Of the parameter counts in the HMHI-Net paper, which names MiT-b1."""
PROMPTED_SIZE = (480, 854)
"""Height and width of DAVIS's frames, which prompted models take as they are."""


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
    """Floating-point operations of one frame, two for each multiply-add.

    The memory is full; that of a prompted model holds the first frame and the one before, and there is one object.
    Matrix products and convolutions are counted, as `torch.utils.flop_counter` does; a top-k read-out counts its
    scores, and none of the values that it gathers.

    Args:
        config: The network.
        size: Height and width of the frame.
    """
    with torch.device("meta"), torch.no_grad():
        model = build_model(config).eval()
        frame = torch.empty(1, 3, *size)
        if isinstance(model, PromptedNet):
            return sum(count_prompted_flops(model, frame))
        assert isinstance(model, HMHINet)
        memory = None
        for _ in range(config.memory_frames * config.memory_interval):
            _, memory = model.step(frame, frame, memory)
        with _counter() as counter:
            model.step(frame, frame, memory)
    return counter.get_total_flops()


def count_prompted_flops(model: PromptedNet, frame: Tensor) -> tuple[int, int]:
    """Operations of segmenting the third frame of a video with one object, and of remembering it.

    Args:
        model: On the device of `frame`; where that is ``meta``, nothing is computed.
        frame: (1, 3, H, W).
    """
    owner = torch.zeros(1, dtype=torch.int64, device=frame.device)
    mask = pad(frame[:, 0], model.traits.pad_to)  # (1, Hp, Wp)
    group = model.begin(0, (1,))
    features = model.encode(frame, ObjectState())
    group = model.write(features, owner, group, mask, mask, 0, pinned=True)
    state = model.remember_frame(features, ObjectState(groups=(group,)))
    for t in (1, 2):
        state = dataclasses.replace(state, frame=t)
        with _counter() as segmenting:
            features = model.encode(frame, state)
            _, group = model.read(features, owner, group, t)
        with _counter() as remembering:
            group = model.write(features, owner, group, mask, mask, t, pinned=False)
        state = model.remember_frame(features, dataclasses.replace(state, groups=(group,)))
    return segmenting.get_total_flops(), remembering.get_total_flops()


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.hmhi.topk_scores: _topk_flops})


def _topk_flops(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of the search for the best keys, from the shapes (B, N, C) and (B, M, C)."""
    return 2 * q[0] * q[1] * k[1] * q[2]


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
