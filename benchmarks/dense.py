"""HMHI-Net as it is computed without any thought for speed: the yardstick of `benchmark.py infer`, and its oracle.

The same weights and the same numbers as `HMHINet.step`, the way the authors' release goes about it: every attention
builds its whole N x M matrix and a softmax over it, the best K keys of a query are chosen by a mask over that
matrix, and the keys and values of all stored frames are projected anew for each frame.

B batch, C channels, h w cells of a stage, N = h*w query tokens, M key tokens, d width of one head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from hmhi.layers.attention import Attention
from hmhi.layers.position import rotary_table, rotate, sine_position
from hmhi.memory.encoder import MASK_STRIDE
from hmhi.memory.readout import MemoryReadout
from hmhi.models.backbones.mit import Adapter, Block, MixTransformer, ReducedAttention, Stage
from hmhi.models.decoder import Decoder, upsample
from hmhi.models.hmhi_net import HMHINet
from hmhi.models.interaction import SGIM


@dataclass
class DenseMemory:
    """Frames seen, and for each stage with a bank the tokens of its last T frames, (B, h*w, C) each."""

    frame: int = 0
    tokens: dict[int, list[Tensor]] = field(default_factory=dict)


class DenseHMHINet:
    """The slow form of a model, on that model's own weights.

    Args:
        model: In eval mode, float32, with a Mix Transformer that reads image and flow.

    Raises:
        ValueError: The model has another backbone or other inputs.
    """

    def __init__(self, model: HMHINet) -> None:
        if not isinstance(model.encoder.backbone, MixTransformer) or model.encoder.inputs != "image+flow":
            raise ValueError("the dense form is written for a Mix Transformer that reads image and flow")
        self.model = model
        self.backbone = model.encoder.backbone

    def step(
        self, image: Tensor, flow: Tensor, memory: DenseMemory | None = None
    ) -> tuple[Tensor, DenseMemory]:
        """Segment one frame, as `HMHINet.step` does; H and W multiples of 32."""
        model = self.model
        memory = memory or DenseMemory(tokens={stage: [] for stage in model.memory_stages})
        features = dict(enumerate(encode(self.backbone, image, flow), start=1))
        if memory.frame > 0:
            for stage in model.memory_stages:
                readout = cast(MemoryReadout, model.readouts[str(stage)])
                features[stage] = read(readout, features[stage], memory.tokens[stage])
            features.update(self._interact(features))
        coarse = decode(model.decoder, list(features.values()))  # (B, 1, H / 4, W / 4)
        tokens = memory.tokens
        if model.policy.writes(memory.frame):
            tokens = {
                stage: [*held, model.memory_encoders[str(stage)](features[stage], coarse)][
                    -model.policy.frames :
                ]
                for stage, held in tokens.items()
            }
        return upsample(coarse, MASK_STRIDE), DenseMemory(memory.frame + 1, tokens)

    def _interact(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        refined = {}
        if self.model.memory_stages:
            shallow, high = self.model.memory_stages[0], self.model.memory_stages[-1]
            for module, target, source in (
                (self.model.high_to_shallow, shallow, high),
                (self.model.shallow_to_high, high, shallow),
            ):
                if isinstance(module, SGIM):
                    tokens = module.project(to_tokens(features[source]))
                    refined[target] = read(module.integrate, features[target], [tokens])
                elif module is not None:
                    refined[target] = module(features[target], features[source])
        return refined


def read(readout: MemoryReadout, feature: Tensor, frames: list[Tensor]) -> Tensor:
    """`MemoryReadout` over stored tokens of any number of frames; (B, C, h, w) to (B, C, h, w)."""
    channels, h, w = feature.shape[1:]
    position = sine_position(h, w, channels, feature.device)
    rotary = rotary_table(h, w, channels, feature.device)

    x = to_tokens(feature) + 0.1 * position  # (B, N, C)
    y = readout.norm1(x)
    qk = y + position if readout.self_position else y
    x = x + attend(readout.self_attention, qk, qk, y, rotary, rotary)

    keys = values = torch.cat(frames, dim=1)  # (B, M, C)
    query_rotary = key_rotary = None
    if readout.key_position == "sine":
        keys = keys + position.repeat(1, len(frames), 1)
    elif readout.key_position == "rotary":
        query_rotary, key_rotary = rotary, rotary.repeat(1, len(frames), 1)
    x = x + attend(readout.memory_attention, readout.norm2(x), keys, values, query_rotary, key_rotary)
    x = x + readout.ffn(readout.norm3(x))
    return to_map(readout.norm(x), (h, w))


def attend(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_rotary: Tensor | None,
    key_rotary: Tensor | None,
) -> Tensor:
    """`Attention` from (B, N, C) to (B, M, C), through the whole (B, N, M) matrix."""
    queries, keys, values = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
    queries = queries if query_rotary is None else rotate(queries, query_rotary)
    keys = keys if key_rotary is None else rotate(keys, key_rotary)
    scores = queries @ keys.transpose(1, 2) * queries.shape[-1] ** -0.5  # (B, N, M)
    if attention.topk and scores.shape[-1] > attention.topk:
        kept = torch.zeros_like(scores, dtype=torch.bool)
        kept.scatter_(-1, scores.topk(attention.topk, dim=-1).indices, value=True)
        scores = scores.masked_fill(~kept, float("-inf"))
    return attention.out_proj(scores.softmax(dim=-1) @ values)


def encode(backbone: MixTransformer, image: Tensor, flow: Tensor) -> list[Tensor]:
    """`DualEncoder` with a Mix Transformer: image and flow to the sums of their stages 1-4, (B, C, h, w)."""
    x = torch.cat((image, flow))
    stages = []
    for stage in cast(list[Stage], backbone.stages):
        x = stage.embed.proj(x)
        grid = (x.shape[2], x.shape[3])
        tokens = stage.embed.norm(to_tokens(x))
        for block in cast(list[Block], stage.blocks):
            tokens = tokens + self_attend(block.attn, block.norm1(tokens), grid)
            hidden = block.mlp.dwconv(to_map(block.mlp.fc1(block.norm2(tokens)), grid))
            tokens = tokens + block.mlp.fc2(torch.nn.functional.gelu(to_tokens(hidden)))
            tokens = adapt(tokens, tokens, block.adapter)
        x = to_map(stage.norm(tokens), grid).contiguous()
        of_image, of_flow = x.chunk(2)
        stages.append(of_image + of_flow)
    return stages


def self_attend(attention: ReducedAttention, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """`ReducedAttention` through its whole matrices, (B, N, C) to (B, N, C)."""
    y = attention.norm(to_tokens(attention.sr(to_map(x, grid)))) if attention.reduction > 1 else x
    q = adapt(attention.q(x), x, attention.q_adapter)
    kv = adapt(attention.kv(y), y, attention.kv_adapter)
    q = q.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # (B, heads, N, d)
    k, v = kv.unflatten(-1, (2, attention.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N / r^2, d)
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(1, 2).flatten(2))


def decode(decoder: Decoder, features: list[Tensor]) -> Tensor:
    """`Decoder`, each level joined with the enlarged coarser one; stages 1-4 to (B, 1, H / 4, W / 4) logits."""
    x = None
    levels = zip(features, decoder.laterals, decoder.blends, decoder.attentions, strict=True)
    for feature, lateral, blend, attention in reversed(list(levels)):
        y = lateral(feature)
        if x is not None:
            y = torch.cat((y, upsample(x, 2)), dim=1)  # (B, 2 E, h, w)
        x = attention(blend(y))
    return decoder.predictor(x)


def adapt(x: Tensor, source: Tensor, adapter: Adapter | None) -> Tensor:
    """Add the adapter's reading of `source` to the second half of the batch, which holds flow."""
    if adapter is None:
        return x
    half = len(x) // 2
    return torch.cat((x[:half], x[half:] + adapter(source[half:])))


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h*w, C)."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, C) to (B, C, h, w)."""
    return x.transpose(1, 2).unflatten(2, grid)
