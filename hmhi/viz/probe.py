"""Listening to a network's memory: what its attention layers were given in each step.

B batch, N query cells, M key cells, C channels, h w cells of a stage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from hmhi.layers.attention import Attention
from hmhi.layers.blocks import CBAM
from hmhi.layers.position import rotate
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.interaction import PLAM, SGIM


@torch.inference_mode()
def cell_weights(
    attention: Attention, q: Tensor, keys: Tensor, cell: int, rotary: Tensor | None = None
) -> Tensor:
    """The weights with which one query cell mixes the values, in float32.

    Args:
        attention: The layer that was called with what follows.
        q: (B, N, C) tokens, not yet projected.
        keys: (B, M, C) projected keys.
        cell: Which of the N queries.
        rotary: Table for the queries' grid, or None.

    Returns:
        (B, M), each row adds up to 1; where the layer keeps its top k keys, all others are exactly 0.
    """
    query = attention.q_proj(q[:, cell : cell + 1].to(attention.q_proj.weight.dtype))  # (B, 1, C)
    if rotary is not None:
        query = rotate(query, rotary[:, cell : cell + 1])
    scores = (query.float() @ keys.float().transpose(1, 2))[:, 0] * keys.shape[-1] ** -0.5  # (B, M)
    if 0 < attention.topk < keys.shape[1]:
        kept, index = scores.topk(attention.topk, dim=-1)
        scores = torch.full_like(scores, -torch.inf).scatter(-1, index, kept)
    return scores.softmax(dim=-1)


@torch.inference_mode()
def cbam_gates(cbam: CBAM, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take a CBAM apart.

    Args:
        cbam: The block.
        x: (B, C, h, w), its input.

    Returns:
        The convolved input (B, C, h, w), the channel gate (B, C, 1, 1) and the spatial gate (B, 1, h, w), gates
        in (0, 1); the block's output is their product.
    """
    x = cbam.conv(x.to(cbam.conv.weight.dtype))
    channel = (
        cbam.channel(F.adaptive_avg_pool2d(x, 1)) + cbam.channel(F.adaptive_max_pool2d(x, 1))
    ).sigmoid()
    gated = x * channel
    pooled = torch.cat((gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)), dim=1)
    return x, channel, cbam.spatial(pooled).sigmoid()


@dataclass
class ProbedStep:
    """What a model's attention layers were given in one step; tensors are held, not copied."""

    reads: dict[int, tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=dict)
    """Memory stage to the read-out's queries, keys and rotary table; empty at the first frame of a video."""
    sgim: dict[int, tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=dict)
    """The same for SGIM, by the stage that it refines."""
    plam: dict[int, Tensor] = field(default_factory=dict)
    """Input of PLAM's CBAM, (B, 2 C, h, w), aligned source first, by the stage that it refines."""
    written: bool = False
    """Whether the banks kept this frame."""


class MemoryProbe:
    """Listens to a model's memory and interaction while the ``with`` block lasts; the model stays as it is.

    Hooks are not called inside a compiled model: probe one in eager mode.

    Args:
        model: Its steps are noted one after another; call `take` once for each.
    """

    def __init__(self, model: HMHINet) -> None:
        self.model = model
        shallow, high = (model.memory_stages or [0])[0], (model.memory_stages or [0])[-1]
        refined = {(shallow, high): model.high_to_shallow, (high, shallow): model.shallow_to_high}
        self.plams = {stages: module for stages, module in refined.items() if isinstance(module, PLAM)}
        """(refined stage, source stage) to the module."""
        self.sgims = {stages: module for stages, module in refined.items() if isinstance(module, SGIM)}
        """(refined stage, source stage) to the module."""
        self._current = ProbedStep()
        self._steps: deque[ProbedStep] = deque()
        self._handles: list[RemovableHandle] = []

    def readout_attention(self, stage: int) -> Attention:
        """The layer that reads from the bank of a stage."""
        attention = self.model.readouts[str(stage)].memory_attention
        assert isinstance(attention, Attention)
        return attention

    def take(self) -> ProbedStep:
        """The oldest step that was not taken yet.

        Raises:
            RuntimeError: The model finished no further step, or is compiled.
        """
        if not self._steps:
            raise RuntimeError(
                "the probe saw no further step of the model; enter it first, and do not compile"
            )
        return self._steps.popleft()

    def __enter__(self) -> MemoryProbe:
        def note_attention(kind: str, stage: int) -> Callable[..., None]:
            def hook(module: Attention, args: tuple[Any, ...]) -> None:
                q, keys, _, rotary = args
                getattr(self._current, kind)[stage] = (q, keys, rotary)

            return hook

        def note_joined(stage: int) -> Callable[..., None]:
            def hook(module: CBAM, args: tuple[Tensor]) -> None:
                self._current.plam[stage] = args[0]

            return hook

        def end_step(*_: object) -> None:
            self._steps.append(self._current)
            self._current = ProbedStep()

        def note_write(*_: object) -> None:  # a frame is written after the decoder has seen it
            self._steps[-1].written = True

        def listen(module: torch.nn.Module, hook: Callable[..., None]) -> None:
            self._handles.append(module.register_forward_pre_hook(hook))

        for stage in self.model.memory_stages:
            listen(self.readout_attention(stage), note_attention("reads", stage))
            listen(self.model.memory_encoders[str(stage)], note_write)
        for (stage, _), sgim in self.sgims.items():
            listen(sgim.integrate.memory_attention, note_attention("sgim", stage))
        for (stage, _), plam in self.plams.items():
            listen(plam.attention, note_joined(stage))
        self._handles.append(self.model.decoder.register_forward_hook(end_step))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._steps.clear()
        self._current = ProbedStep()
