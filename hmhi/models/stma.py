"""STMA (Miao et al., 2024): spatial-temporal multi-level association, for objects given by masks.

Our reading of a paper without code: no weights and no code of its authors exist, so nothing of it is reproduced.
docs/PAPER_MAP.md names each choice that the paper leaves open.

B videos, K objects of a video, R rows (objects of all videos), m reference frames, T slots, Hp Wp pixels of the
padded frame, h w cells at 1/16, N = h*w, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from hmhi.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from hmhi.layers.residual import conv3x3, init_weights
from hmhi.layers.tokens import from_tokens, to_tokens
from hmhi.memory.affinity import read_nearest
from hmhi.memory.bank import BankPolicy, MemoryBank, Slot
from hmhi.memory.objects import Group, ObjectState
from hmhi.models.backbones.base import TokenBackbone, Trunk
from hmhi.models.backbones.masked import MaskedTrunk
from hmhi.models.base import Traits
from hmhi.models.prompted import PromptedNet, pad
from hmhi.models.stma_parts import Join, Neck, STMADecoder
from hmhi.models.stml import Context, make_context, see, see_jointly

EVERY_FRAME = BankPolicy(frames=0)
"""What training keeps: a clip is short."""


@dataclass(frozen=True)
class Seen:
    """A frame, encoded once for all objects."""

    image: Tensor
    """(B, 3, Hp, Wp) normalised and padded."""
    tokens: Tensor
    """(B, N, C) before the first block, as the frame is remembered."""
    feature: Tensor
    """(B, C, h, w) of the frame, associated with references and objects."""
    skips: list[Tensor]
    """(B, C1, 4 h, 4 w) and (B, C2, 2 h, 2 w)."""
    key: Tensor
    """(B, N, D)."""
    context: Context | None
    """What of references and objects the frame saw, where it did not change through the frame."""


class STMA(PromptedNet):
    """Frames are associated with reference frames and objects in the backbone, and with objects' values by identity.

    Our reading of a paper without code; nothing of it is reproduced.

    Args:
        backbone: Encodes frames; its blocks are the STML module.
        value_trunk: Encodes frames with masks.
        stages: C at 1/4 and 1/8 where the backbone has no such levels.
        key_channels: D of the temporal memory; 0 takes the feature as it is.
        value_channels: Width of values.
        decoder_channels: Width of the decoder.
        policy: Frames of the temporal memory.
        references: m, frames of the spatial memory that a frame sees, the first one among them; each later group of
            objects adds its own first frame. 0 is Table 1's row without spatial memory.
        topk: Cells of the temporal memory that a query reads; all in training.
        attention: Three streams, or every token sees all (Table 1, "Joint").
        object_tokens: Give the blocks one token for each object (Table 1, "Object").
        detach_masks: As for `PromptedNet`.
    """

    traits = Traits(kind="stma", prompted=True, reads_flow=False, pad_to=16, short_side=480)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        backbone: TokenBackbone,
        value_trunk: Trunk,
        stages: Sequence[int] = (256, 384),
        key_channels: int = 64,
        value_channels: int = 512,
        decoder_channels: int = 512,
        policy: BankPolicy,
        references: int = 2,
        topk: int = 30,
        attention: Literal["split", "joint"] = "split",
        object_tokens: bool = True,
        detach_masks: bool = False,
    ) -> None:
        super().__init__(detach_masks=detach_masks)
        channels = backbone.channels
        self.policies = {
            "temporal": policy,
            "spatial": BankPolicy(frames=references, interval=policy.interval),
        }
        self.references, self.topk, self.attention = references, topk, attention
        self.backbone = backbone
        self.neck = None if backbone.stages else Neck(channels, stages)
        self.key = conv3x3(channels, key_channels) if key_channels else nn.Identity()
        self.value_encoder = MaskedTrunk(value_trunk)
        self.value_join = Join(value_trunk.channels[2] + channels, value_channels)
        self.object_projection = nn.Linear(value_channels, channels) if object_tokens else None
        if object_tokens:
            self.object_vector = nn.Parameter(torch.randn(channels) * 0.02)
        self.decoder = STMADecoder(channels, backbone.stages or stages, value_channels, decoder_channels)
        for module in (self.key, self.value_join):
            module.apply(init_weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """What comes before the blocks, both other encoders and the decoder; the blocks see ever more tokens."""
        return self.backbone, self.value_encoder, self.value_join, self.decoder

    def encode(
        self, image: Tensor, state: ObjectState, valid: Tensor | None = None, *, learning: bool = False
    ) -> Seen:
        """Normalise, pad with zeros, and associate; see `PromptedNet.encode`.

        A frame at which nothing is followed yet is encoded by itself. In training the references are drawn at random
        among the frames before.
        """
        image = pad((image - self.mean) / self.std, self.traits.pad_to)
        grid = (image.shape[2] // 16, image.shape[3] // 16)
        tokens, skips = self.backbone(image)
        seen, context = self._associate(tokens, state, valid, learning=learning)
        feature = from_tokens(self.backbone.norm(seen), grid)  # (B, C, h, w)
        if self.neck is not None and state.groups:
            skips = self.neck(feature)
        return Seen(image, tokens, feature, skips, to_tokens(self.key(feature)), context)

    def _associate(
        self, tokens: Tensor, state: ObjectState, valid: Tensor | None, *, learning: bool
    ) -> tuple[Tensor, Context | None]:
        """Tokens (B, N, C) after the blocks, and what they saw where it may be kept."""
        blocks = self.backbone.transformer
        if not state.groups or state.context is not None:
            return see(blocks, tokens, state.context), state.context
        objects = self._object_tokens(state, valid)
        references = self._reference_tokens(state, learning=learning)
        present = valid if objects is not None else None
        if self.attention == "joint":
            return see_jointly(blocks, tokens, objects, references, present), None
        context = make_context(blocks, objects, references, present)
        return see(blocks, tokens, context), None if learning else context

    def _object_tokens(self, state: ObjectState, valid: Tensor | None) -> Tensor | None:
        """(B, K, C): each object's largest memorised values (Eq. 5), projected, and what tells them from places."""
        if self.object_projection is None:
            return None
        peaks = [
            torch.stack([slot.tensors["value"].amax(dim=1) for slot in group.banks["temporal"].slots])
            for group in state.groups
        ]  # (T, R, Cv) of each group
        objects = self.object_projection(torch.cat([peak.amax(dim=0) for peak in peaks])) + self.object_vector
        if valid is None:
            return objects[None]  # (1, R, C)
        return objects.new_zeros(*valid.shape, objects.shape[-1]).index_put((valid,), objects)  # (B, K, C)

    def _reference_tokens(self, state: ObjectState, *, learning: bool) -> Tensor | None:
        """(B, m, N, C)."""
        if not self.references:
            return None
        frames = torch.stack([slot.tensors["tokens"] for slot in state.shared["spatial"].slots], dim=1)
        if learning and frames.shape[1] > self.references:  # drawn for each video
            order = torch.rand(frames.shape[:2], device=frames.device).argsort(dim=1)  # (B, T)
            chosen = order[:, : self.references, None, None].expand(-1, -1, *frames.shape[2:])
            frames = frames.gather(1, chosen)  # (B, m, N, C)
        return frames

    def begin(self, start: int, ids: Sequence[int], *, learning: bool = False) -> Group:
        """An empty temporal memory; see `PromptedNet.begin`."""
        policy = EVERY_FRAME if learning else self.policies["temporal"]
        return Group(start, tuple(ids), {"temporal": MemoryBank(policy)})

    def read(
        self,
        features: Seen,
        owner: Tensor,
        group: Group,
        frame: int,
        *,
        learning: bool = False,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Group]:
        """Read the values of the objects where their frames resemble this one, and decode; see `PromptedNet.read`."""
        bank = group.banks["temporal"]
        grid = (features.feature.shape[2], features.feature.shape[3])
        bank.check(len(owner), grid)
        query, slots = features.key, [slot.tensors["key"] for slot in bank.slots]
        if len(query) == 1:  # all objects are of one video
            keys = torch.cat([key[:1] for key in slots], dim=1)  # (1, M, D)
        else:
            query, keys = query[owner], torch.cat(slots, dim=1)  # (R, N, D), (R, M, D)
        read, received = read_nearest(query, keys, bank.joined("value"), topk=0 if learning else self.topk)
        if not learning:
            bank = bank.used(received[0].unflatten(0, (len(bank), -1)).sum(dim=1).unbind())
        logits = self.decoder(features.feature, features.skips, from_tokens(read, grid), owner)  # (R, Hp, Wp)
        prob = logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()
        return prob, Group(group.start, group.ids, {"temporal": bank})

    def write(
        self,
        features: Seen,
        owner: Tensor,
        group: Group,
        masks: Tensor,
        others: Tensor,
        frame: int,
        *,
        pinned: bool,
    ) -> Group:
        """Key and values of a frame that the memory takes; see `PromptedNet.write`."""
        bank = group.banks["temporal"]
        if not (pinned or bank.policy.writes(frame)):
            return group
        of_masks = self.value_encoder(features.image, owner, masks, others)[2]  # (R, Ct, h, w)
        value = self.value_join(features.feature[owner], of_masks)  # (R, Cv, h, w)
        tensors = {"key": features.key[owner], "value": to_tokens(value)}
        grid = (value.shape[2], value.shape[3])
        return replace(group, banks={"temporal": bank.append(Slot(frame, grid, tensors, pinned=pinned))})

    def remember_frame(self, features: Seen, state: ObjectState, *, learning: bool = False) -> ObjectState:
        """Keep the frame as a reference, where the spatial memory takes it; see `PromptedNet.remember_frame`.

        A frame at which a group of objects began stays as long as one of them is followed.
        """
        frame, shared = state.frame, dict(state.shared)
        changed = any(frame in group.banks["temporal"].frames for group in state.groups)
        policy = EVERY_FRAME if learning else self.policies["spatial"]
        starts = {group.start for group in state.groups}
        if self.references and (frame in starts or policy.writes(frame)):
            bank = shared.get("spatial", MemoryBank(policy)).pinned_at(starts)
            grid = (features.feature.shape[2], features.feature.shape[3])
            slot = Slot(frame, grid, {"tokens": features.tokens}, pinned=frame in starts)
            shared["spatial"], changed = bank.append(slot), True
        return replace(state, shared=shared, context=None if changed else features.context)
