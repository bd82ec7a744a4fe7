"""One step of HMHI-Net as a graph of tensors: `torch.export` and ONNX, with the memory as inputs and outputs.

B batch, T slots of a bank, N = h*w cells of a stage, C channels, K kept keys.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.attention import Attention
from hmhi.layers.position import rotate
from hmhi.memory.bank import Memory, MemoryBank, Slot
from hmhi.memory.encoder import MASK_STRIDE
from hmhi.memory.readout import MemoryReadout
from hmhi.models.decoder import upsample
from hmhi.models.hmhi_net import PAD_TO, HMHINet

EMPTY = -1e9  # added to the scores of a slot that holds nothing; its softmax is zero in float32
QUERIES_AT_ONCE = 512  # whose kept values are gathered in one piece: (B, 512, K, C)
OPSET = 18


class StreamStep(nn.Module):
    """`HMHINet.step` with a memory of fixed size.

    A bank is a pair of tensors (B, T * N, C), oldest slot first, filled from the end. How many slots count follows
    from the number of the frame, so that one graph serves the first frame, a memory that fills, and a full one.

    Args:
        model: The network, which is copied.
        size: Height and width of the frames.
    """

    def __init__(self, model: HMHINet, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.size = size
        inputs = model.encoder.inputs
        self.pictures = ("image", "flow") if inputs == "image+flow" else (inputs,)
        self.eval()
        for module in self.model.modules():
            if isinstance(module, MemoryReadout):  # of a bank, or of the interaction
                to_bank = module in self.model.readouts.values()
                module.self_attention = cast(Attention, PlainAttention(module.self_attention))
                module.memory_attention = cast(
                    Attention, PlainAttention(module.memory_attention, masked=to_bank)
                )

    @property
    def input_names(self) -> list[str]:
        """Names of the arguments of `forward`."""
        banks = [f"{part}_{stage}" for stage in self.model.memory_stages for part in ("keys", "values")]
        return [*self.pictures, "frame", *banks]

    @property
    def output_names(self) -> list[str]:
        """Names of what `forward` returns; ``next_X`` goes to the input ``X`` with the next frame."""
        return ["logits", *(f"next_{name}" for name in self.input_names[len(self.pictures) :])]

    @property
    def dynamic_shapes(self) -> tuple[tuple[dict[int, torch.export.Dim], ...]]:
        """For `torch.export`: what of the inputs is free, the batch alone. Its example needs a batch of 2 or more."""
        batch = torch.export.Dim("batch")
        return (tuple({} if name == "frame" else {0: batch} for name in self.input_names),)

    def example(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs of the first frame, its pictures black: zeros of the right shape and type."""
        height, width = self.size
        pictures = [torch.zeros(batch, 3, height, width) for _ in self.pictures]
        banks = []
        for stage in self.model.memory_stages:
            h, w = self._grid(stage)
            channels = cast(nn.Linear, self._readout(stage).norm1).weight.shape[0]
            slots = self.model.policy.frames * h * w
            banks += [torch.zeros(batch, slots, channels) for _ in range(2)]
        return (*pictures, torch.zeros(1, dtype=torch.int64), *banks)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Segment one frame.

        Args:
            inputs: As `input_names` lists them: image and flow (B, 3, H, W), normalised; frame (1,) int64, the
                number of the frame in its video, from 0; keys and values (B, T * N, C) of each bank.

        Returns:
            As `output_names` lists them: logits (B, 1, H, W), then the last inputs for the next frame.
        """
        model, count = self.model, len(self.pictures)
        given = dict(zip(self.pictures, inputs[:count], strict=True))
        frame, banks = inputs[count], inputs[count + 1 :]
        held = torch.clamp(
            (frame + model.policy.interval - 1) // model.policy.interval, max=model.policy.frames
        )
        memory = self._memory(banks, held)

        features = model.encode(given.get("image"), given.get("flow"))
        if banks:
            refined = model.interact(model.read(features, memory))
            features = {stage: torch.where(frame > 0, refined[stage], features[stage]) for stage in features}
        coarse = model.decoder(list(features.values()))  # (B, 1, H / 4, W / 4)
        written = model.write(features, coarse, memory, keep=True)

        kept = frame % model.policy.interval == 0
        after = []
        for i, old in enumerate(banks):
            slot = written.banks[model.memory_stages[i // 2]].slots[-1]
            new = slot.tensors["key" if i % 2 == 0 else "value"]  # (B, N, C)
            after.append(torch.where(kept, torch.cat((old[:, new.shape[1] :], new), dim=1), old))
        logits = upsample(coarse, MASK_STRIDE)[..., : self.size[0], : self.size[1]]
        return (logits, frame + 1, *after)

    def _memory(self, banks: tuple[Tensor, ...], held: Tensor) -> Memory:
        """Banks with a slot for each of T frames; the keys' last channel tells which of them count."""
        model = self.model
        slots = model.policy.frames
        made = {}
        for i, stage in enumerate(model.memory_stages):
            keys, values = banks[2 * i], banks[2 * i + 1]
            age = torch.arange(slots, 0, -1)  # of each slot, the newest 1
            bias = torch.where(age > held, EMPTY, 0.0)  # (T,)
            bias = bias.repeat_interleave(keys.shape[1] // slots)[None, :, None]  # (1, T * N, 1)
            keys = torch.cat((keys, bias.expand(keys.shape[0], -1, -1)), dim=2)  # (B, T * N, C + 1)
            pairs = zip(keys.chunk(slots, dim=1), values.chunk(slots, dim=1), strict=True)  # (B, N, ...) each
            grid = self._grid(stage)
            made[stage] = MemoryBank(
                model.policy, tuple(Slot(0, grid, {"key": k, "value": v}) for k, v in pairs)
            )
        return Memory(banks=made)

    def _grid(self, stage: int) -> tuple[int, int]:
        stride = 2 ** (stage + 1)
        height, width = (-(-side // PAD_TO) * PAD_TO for side in self.size)
        return height // stride, width // stride

    def _readout(self, stage: int) -> MemoryReadout:
        return cast(MemoryReadout, self.model.readouts[str(stage)])


class PlainAttention(nn.Module):
    """`Attention` in operators that every runtime has.

    Args:
        attention: Whose weights it uses.
        masked: Whether the keys have a last channel that is added to their scores.
    """

    def __init__(self, attention: Attention, *, masked: bool = False) -> None:
        super().__init__()
        self.attention = attention
        self.masked = masked

    def keys_values(self, k: Tensor, v: Tensor, rotary: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `Attention.keys_values`."""
        return self.attention.keys_values(k, v, rotary)

    def forward(self, q: Tensor, keys: Tensor, values: Tensor, rotary: Tensor | None = None) -> Tensor:
        """As `Attention.forward`; keys are (B, M, C + 1) where they are masked."""
        of = self.attention
        queries = of.q_proj(q)
        if rotary is not None:
            queries = rotate(queries, rotary)
        if not self.masked:  # the exporter takes four axes only
            q, k, v = queries.unsqueeze(1), keys.unsqueeze(1), values.unsqueeze(1)  # (B, 1, ..., C) each
            return of.out_proj(F.scaled_dot_product_attention(q, k, v).squeeze(1))
        keys, bias = keys[..., :-1], keys[..., -1]  # (B, M, C) and (B, M)
        transposed = keys.transpose(1, 2) * keys.shape[2] ** -0.5  # (B, C, M)
        topk = of.topk if keys.shape[1] > of.topk else 0
        parts = []
        for part in queries.split(QUERIES_AT_ONCE, dim=1):
            scores = part @ transposed + bias[:, None]  # (B, n, M)
            parts.append(
                _mix_topk(scores, values, topk) if topk else scores.softmax(dim=-1) @ values
            )  # (B, n, C)
        return of.out_proj(torch.cat(parts, dim=1))


def _mix_topk(scores: Tensor, values: Tensor, topk: int) -> Tensor:
    """(B, n, C): the values of each row's best keys, weighted by the softmax of their scores."""
    batch, m, channels = values.shape
    kept, index = scores.topk(topk, dim=-1)  # (B, n, K) each
    first = torch.arange(batch)[:, None, None] * m  # (B, 1, 1)
    gathered = values.reshape(batch * m, channels)[index + first]  # (B, n, K, C)
    return (kept.softmax(dim=-1).unsqueeze(-2) @ gathered).squeeze(-2)


def export_onnx(
    model: HMHINet,
    size: tuple[int, int],
    path: Path,
    *,
    about: Mapping[str, str] | None = None,
) -> StreamStep:
    """Write one step as an ONNX file.

    Args:
        model: The network.
        size: Height and width of the frames, which the graph is bound to; the batch is free.
        path: File to write.
        about: Metadata for the file.

    Returns:
        The module that was exported, whose names and example inputs are those of the file.
    """
    step = StreamStep(model, size)
    with torch.no_grad():
        graph = torch.export.export(
            step, step.example(batch=2), dynamic_shapes=step.dynamic_shapes, strict=False
        )
        program = torch.onnx.export(
            graph, input_names=step.input_names, output_names=step.output_names, dynamo=True,
            dynamic_shapes=step.dynamic_shapes, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(about or {})
    program.save(path)
    return step
