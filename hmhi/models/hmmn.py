"""HMMN (Seong et al., ICCV 2021): hierarchical memory matching, for objects given by masks.

B videos, R rows (objects of all videos), Hp Wp pixels of the padded frame, h w cells at 1/16, n = h*w, C channels.
Levels 2, 3, 4 have strides 4, 8, 16; a cell holds 4 x 4 positions of level 2 and 2 x 2 of level 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from hmhi.layers.normalize import IMAGENET_MEAN, IMAGENET_STD
from hmhi.layers.residual import conv3x3, init_weights
from hmhi.layers.tokens import from_tokens, to_tokens
from hmhi.memory.affinity import read_memory
from hmhi.memory.bank import BankPolicy, MemoryBank, Slot
from hmhi.memory.block_topk import from_blocks, read_blocks, to_blocks
from hmhi.memory.objects import Group, ObjectState
from hmhi.memory.tracking import Kernel, place_kernel
from hmhi.models.backbones.base import Trunk
from hmhi.models.backbones.masked import MaskedTrunk
from hmhi.models.base import Traits
from hmhi.models.hmmn_decoder import FACTORS, FineLevel, HMMNDecoder
from hmhi.models.prompted import PromptedNet, pad


@dataclass(frozen=True)
class Seen:
    """A frame, encoded once for all objects."""

    image: Tensor
    """(B, 3, Hp, Wp) padded and normalised."""
    query: Query | None
    """None where nothing is read."""


@dataclass(frozen=True)
class Query:
    """What of a frame is compared with the memory, and what goes to the decoder beside it."""

    key: Tensor
    """(B, n, C) of level 4."""
    joined: Tensor
    """(B, C, h, w)."""
    fine_keys: dict[int, Tensor]
    """Level to (B, n, f*f, C)."""
    skips: dict[int, Tensor]
    """Level to (B, C, f h, f w)."""


class HMMN(PromptedNet):
    """Dense reading at 1/16 with a kernel that follows the object, sparse reading at 1/8 and 1/4.

    Args:
        memory_trunk: Encodes frames with their masks.
        query_trunk: Encodes frames; of the same form.
        key_channels: Width of keys at levels 2, 3, 4.
        value_channels: Width of values at levels 2, 3, 4.
        decoder_channels: Width of the decoder.
        kernel: Of the coarse read; left out in training.
        coarse_policy: Frames of the coarse bank.
        fine_policy: Frames of the fine bank, all of them in the coarse one as well.
        topk: Coarse cells that a query reads at level 3; a quarter of them at level 2.
        fine_levels: Which of the levels 3, 2 are read.
        detach_masks: As for `PromptedNet`.
    """

    traits = Traits(kind="hmmn", prompted=True, reads_flow=False, pad_to=16, short_side=480)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        memory_trunk: Trunk,
        query_trunk: Trunk,
        key_channels: Sequence[int] = (64, 128, 128),
        value_channels: Sequence[int] = (128, 256, 512),
        decoder_channels: int = 256,
        kernel: Kernel,
        coarse_policy: BankPolicy,
        fine_policy: BankPolicy,
        topk: int = 32,
        fine_levels: Sequence[int] = (3, 2),
        detach_masks: bool = False,
    ) -> None:
        super().__init__(detach_masks=detach_masks)
        self.memory_encoder, self.query_encoder = MaskedTrunk(memory_trunk), query_trunk
        self.kernel, self.topk, self.fine_levels = kernel, topk, tuple(fine_levels)
        self.policies = {"coarse": coarse_policy, "fine": fine_policy}
        channels = query_trunk.channels
        read_levels = (*self.fine_levels, 4)

        def heads(widths: Sequence[int], levels: Sequence[int]) -> nn.ModuleDict:
            return nn.ModuleDict({str(i): conv3x3(channels[i - 2], widths[i - 2]) for i in levels})

        self.memory_keys, self.memory_values = (
            heads(key_channels, read_levels),
            heads(value_channels, read_levels),
        )
        self.query_keys, self.query_values = heads(key_channels, read_levels), heads(value_channels, [4])
        read_channels = [value_channels[i - 2] if i in read_levels else 0 for i in (2, 3, 4)]
        self.decoder = HMMNDecoder(channels, read_channels, decoder_channels)
        for module in (self.memory_keys, self.memory_values, self.query_keys, self.query_values):
            module.apply(init_weights)
        self.query_keys.load_state_dict(
            self.memory_keys.state_dict()
        )  # untrained, a place already finds its like
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """Both encoders and the decoder; the rest changes shape while the memory fills."""
        return self.memory_encoder, self.query_encoder, self.decoder

    def encode(
        self, image: Tensor, state: ObjectState, valid: Tensor | None = None, *, learning: bool = False
    ) -> Seen:
        """Pad with zeros, then normalise, and encode; see `PromptedNet.encode`."""
        image = (pad(image, self.traits.pad_to) - self.mean) / self.std
        return Seen(image, self._encode_query(image) if state.groups else None)

    def _encode_query(self, image: Tensor) -> Query:
        levels = dict(enumerate(self.query_encoder(self.query_encoder.stem(image)), start=2))
        return Query(
            key=to_tokens(self.query_keys["4"](levels[4])),  # (B, n, C)
            joined=self.decoder.join_query(self.query_values["4"](levels[4])),
            fine_keys={
                i: to_blocks(self.query_keys[str(i)](levels[i]), FACTORS[i]) for i in self.fine_levels
            },
            skips={i: cast(FineLevel, self.decoder.levels[str(i)]).skip(levels[i]) for i in FACTORS},
        )

    def begin(self, start: int, ids: Sequence[int], *, learning: bool = False) -> Group:
        """Empty banks; see `PromptedNet.begin`."""
        return Group(start, tuple(ids), {name: MemoryBank(policy) for name, policy in self.policies.items()})

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
        """Coarse read, fine reads where the coarse one looks most, decoder; see `PromptedNet.read`.

        In training there is no kernel, and each fine read of a video is left out at the rate `dropout`.
        """
        query = features.query
        assert query is not None
        coarse, fine = group.banks["coarse"], group.banks["fine"]
        grid = (query.joined.shape[2], query.joined.shape[3])
        coarse.check(len(owner), grid)

        def of_rows(x: Tensor) -> Tensor:
            return x if len(x) == 1 else x[owner]

        key = of_rows(query.key)  # (R, n, C)
        bias = None
        if self.kernel.mode != "none" and not learning:
            bias, coarse = place_kernel(key, coarse, grid, self.kernel)
        guides, best = self._guides(coarse, fine)
        read4, chosen = read_memory(
            key, coarse.joined("key"), coarse.joined("value"), grid, bias=bias, guides=guides, best=best
        )  # (R, n, Cv), (R, n, best)
        reads = {}
        for level in self.fine_levels:
            assert chosen is not None
            count = best if level == 3 else max(1, best // 4)
            blocks = read_blocks(
                of_rows(query.fine_keys[level]),
                fine.joined(f"key{level}"),
                fine.joined(f"value{level}"),
                chosen[..., :count],
            )  # (R, n, f*f, Cv)
            reads[level] = from_blocks(blocks, FACTORS[level], grid)  # (R, Cv, f h, f w)
        if learning and dropout > 0.0:
            reads = {level: read * _kept(read, owner, dropout) for level, read in reads.items()}
        skips = {level: of_rows(skip) for level, skip in query.skips.items()}
        logits = self.decoder(from_tokens(read4, grid), of_rows(query.joined), skips, reads)  # (R, 2, Hp, Wp)
        prob = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)[:, 1]
        return prob, Group(group.start, group.ids, {"coarse": coarse, "fine": fine})

    def _guides(self, coarse: MemoryBank, fine: MemoryBank) -> tuple[Tensor | None, int]:
        """The cells of the coarse bank whose frames the fine bank holds, in its order, and how many are chosen."""
        if not self.fine_levels:
            return None, 0
        cells = coarse.slots[0].grid[0] * coarse.slots[0].grid[1]
        best = min(self.topk, cells * len(fine))
        if coarse.frames == fine.frames:
            return None, best
        first = [coarse.frames.index(frame) * cells for frame in fine.frames]
        return torch.cat([torch.arange(i, i + cells, device=self.device) for i in first]), best

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
        """Keys and values of all levels; see `PromptedNet.write`."""
        encoded = self.memory_encoder(features.image, owner, masks, others)
        levels = dict(enumerate(encoded, start=2))
        grid = (levels[4].shape[2], levels[4].shape[3])
        key, value = self.memory_keys["4"](levels[4]), self.memory_values["4"](levels[4])  # (R, C, h, w)
        coarse = Slot(frame, grid, {"key": to_tokens(key), "value": to_tokens(value)}, pinned=pinned)
        fine = {}
        for i in self.fine_levels:
            fine[f"key{i}"] = to_blocks(self.memory_keys[str(i)](levels[i]), FACTORS[i])  # (R, n, f*f, C)
            fine[f"value{i}"] = to_blocks(self.memory_values[str(i)](levels[i]), FACTORS[i])
        banks = {"coarse": group.banks["coarse"].append(coarse), "fine": group.banks["fine"]}
        if fine:
            banks["fine"] = banks["fine"].append(Slot(frame, grid, fine, pinned=pinned))
        return Group(group.start, group.ids, banks)


def _kept(read: Tensor, owner: Tensor, dropout: float) -> Tensor:
    """(R, 1, 1, 1) of 0 and 1, one draw for each video; what is kept is not rescaled."""
    draws = torch.rand(int(owner.max()) + 1, device=read.device) >= dropout  # (B,)
    return draws[owner].to(read)[:, None, None, None]
