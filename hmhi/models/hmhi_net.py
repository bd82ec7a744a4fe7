"""HMHI-Net (Zheng et al., ACM MM 2025): the whole paper, one frame at a time.

B batch, T frames, H W pixels, C channels and h w cells of a stage; stages 1-4 have strides 4, 8, 16, 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.layers.recompute import recomputed
from hmhi.memory.bank import BankPolicy, Memory, MemoryBank, Slot
from hmhi.memory.encoder import MASK_STRIDE, MemoryEncoder
from hmhi.memory.readout import MemoryReadout
from hmhi.models.base import Traits
from hmhi.models.decoder import Decoder, upsample
from hmhi.models.dual_encoder import DualEncoder

PAD_TO = 32  # the coarsest stage's stride


class HMHINet(nn.Module):
    """Encoder, a read-out and a memory encoder for each stage with a bank, interaction, decoder.

    Args:
        encoder: Image and flow to four stages.
        readouts: Stage to its read-out.
        memory_encoders: Stage to its memory encoder; the same stages.
        high_to_shallow: Refines the lowest memory stage from the highest (SGIM in the paper), or None.
        shallow_to_high: Refines the highest memory stage from the lowest (PLAM in the paper), or None.
        decoder: Four stages to logits at a quarter of the size.
        policy: Which frames the banks keep.

    Attributes:
        recompute_steps: Whether the backward pass of a clip computes each step anew, to keep less in memory.
    """

    def __init__(
        self,
        *,
        encoder: DualEncoder,
        readouts: Mapping[int, MemoryReadout],
        memory_encoders: Mapping[int, MemoryEncoder],
        high_to_shallow: nn.Module | None,
        shallow_to_high: nn.Module | None,
        decoder: Decoder,
        policy: BankPolicy,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.readouts = nn.ModuleDict({str(stage): module for stage, module in readouts.items()})
        self.memory_encoders = nn.ModuleDict(
            {str(stage): module for stage, module in memory_encoders.items()}
        )
        self.high_to_shallow: nn.Module | None = high_to_shallow
        self.shallow_to_high: nn.Module | None = shallow_to_high
        self.decoder = decoder
        self.policy = policy
        self.memory_stages = sorted(readouts)
        self.recompute_steps = False

    @property
    def traits(self) -> Traits:
        """How the model wants to be used."""
        reads_flow = self.encoder.inputs != "image"
        return Traits(kind="hmhi", prompted=False, reads_flow=reads_flow, pad_to=PAD_TO, short_side=None)

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """Encoder and decoder; the rest changes shape while the memory fills, and gains little."""
        return self.encoder, self.decoder

    def forward(self, images: Tensor, flows: Tensor) -> Tensor:
        """Segment a clip.

        Args:
            images: (B, T, 3, H, W) float, normalised with ImageNet's mean and deviation.
            flows: (B, T, 3, H, W) float, colour-wheel maps normalised alike.

        Returns:
            (B, T, 1, H, W) logits.
        """
        memory: Memory | None = None
        clip = []
        frames = images.shape[1]
        step = recomputed(self, self.step) if self.recompute_steps else self.step
        for t in range(frames):
            logits, memory = step(images[:, t], flows[:, t], memory, write=t < frames - 1)
            clip.append(logits)
        return torch.stack(clip, dim=1)  # (B, T, 1, H, W)

    def step(
        self, image: Tensor | None, flow: Tensor | None, memory: Memory | None = None, *, write: bool = True
    ) -> tuple[Tensor, Memory]:
        """Segment one frame with what came before (paper section 3.1).

        Args:
            image: (B, 3, H, W) float, normalised; any H and W. None only for a model that reads flow alone.
            flow: (B, 3, H, W) like image. None only for a model that reads images alone.
            memory: What the last step returned; None at the first frame of a video.
            write: False spares the memory encoder where no further frame will come.

        Returns:
            Logits (B, 1, H, W) and the memory for the next frame; the memory given is left as it was.

        Raises:
            ValueError: An input is missing, shapes differ, or they changed in the middle of a video.
        """
        features = self.encode(image, flow)
        frame = flow if self.encoder.inputs == "flow" else image
        assert frame is not None  # `encode` has checked it
        return self.advance(features, (frame.shape[2], frame.shape[3]), memory, write=write)

    def advance(
        self,
        features: dict[int, Tensor],
        size: tuple[int, int],
        memory: Memory | None = None,
        *,
        write: bool = True,
    ) -> tuple[Tensor, Memory]:
        """The part of `step` after the encoder, which needs the frame before to be done.

        Args:
            features: What `encode` returned for this frame, or this frame's rows of a larger batch.
            size: (H, W) of the image, before padding.
            memory: As for `step`.
            write: As for `step`.

        Returns:
            As `step`.

        Raises:
            ValueError: The frame's size or batch differs from that of the frames remembered.
        """
        memory = memory or self.new_memory()
        if memory.frame > 0:
            features = self.interact(self.read(features, memory))
        coarse = self.decoder(list(features.values()))  # (B, 1, H / 4, W / 4)
        memory = self.write(features, coarse, memory, keep=write)
        return upsample(coarse, MASK_STRIDE)[..., : size[0], : size[1]], memory

    def new_memory(self) -> Memory:
        """The empty memory that a video starts with."""
        return Memory(banks={stage: MemoryBank(self.policy) for stage in self.memory_stages})

    def encode(self, image: Tensor | None, flow: Tensor | None) -> dict[int, Tensor]:
        """Stage (1-4) to fused feature, Eq. 1.

        Needs no memory: the frames of a video may be encoded ahead, several in one batch, and passed to
        `advance` one after the other.

        Args:
            image: (B, 3, H, W), as for `step`.
            flow: (B, 3, H, W), as for `step`.

        Returns:
            (B, C, h, w) each; h and w are H and W, rounded up to multiples of 32, over the stage's stride.

        Raises:
            ValueError: An input is missing, or shapes differ.
        """
        self._check(image, flow)
        return dict(enumerate(self.encoder(_pad(image), _pad(flow)), start=1))

    def read(self, features: dict[int, Tensor], memory: Memory) -> dict[int, Tensor]:
        """Refine each stage that has a bank with what the bank holds, Eq. 2 and 5-7."""
        read = dict(features)
        for stage in self.memory_stages:
            feature, bank = features[stage], memory.banks[stage]
            bank.check(feature.shape[0], (feature.shape[2], feature.shape[3]))
            read[stage] = self.readouts[str(stage)](feature, bank.joined("key"), bank.joined("value"))
        return read

    def interact(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """Let the two memory levels refine each other from the same read-outs, Eq. 3 and 8-12."""
        refined = dict(features)
        if self.high_to_shallow is not None or self.shallow_to_high is not None:
            shallow, high = self.memory_stages[0], self.memory_stages[-1]
            if self.high_to_shallow is not None:
                refined[shallow] = self.high_to_shallow(features[shallow], features[high])
            if self.shallow_to_high is not None:
                refined[high] = self.shallow_to_high(features[high], features[shallow])
        return refined

    def write(self, features: dict[int, Tensor], coarse: Tensor, memory: Memory, *, keep: bool) -> Memory:
        """The memory after this frame (section 3.4); the frame is kept where policy and `keep` say so."""
        banks = dict(memory.banks)
        if keep and self.policy.writes(memory.frame):
            for stage in self.memory_stages:
                tokens = self.memory_encoders[str(stage)](features[stage], coarse)  # (B, h*w, C)
                grid = (features[stage].shape[2], features[stage].shape[3])
                readout = cast(MemoryReadout, self.readouts[str(stage)])
                key, value = readout.keys_values(tokens, grid)  # (B, h*w, C) each
                banks[stage] = banks[stage].append(Slot(memory.frame, grid, {"key": key, "value": value}))
        return Memory(frame=memory.frame + 1, banks=banks)

    def _check(self, image: Tensor | None, flow: Tensor | None) -> None:
        needed = {"image": image, "flow": flow}
        if self.encoder.inputs != "image+flow":
            needed = {self.encoder.inputs: needed[self.encoder.inputs]}
        for name, x in needed.items():
            if x is None:
                raise ValueError(f"this model reads {self.encoder.inputs}, but {name} is None")
            if x.dim() != 4 or x.shape[1] != 3:
                raise ValueError(f"{name} must have shape (B, 3, H, W), got {tuple(x.shape)}")
        shapes = [tuple(x.shape) for x in needed.values() if x is not None]
        if any(shape != shapes[0] for shape in shapes):  # no set: sizes of an export cannot be hashed
            raise ValueError(f"image and flow differ in shape: {sorted(shapes)}")


def _pad(x: Tensor | None) -> Tensor | None:
    """Repeat the last row and column up to the next multiple of 32."""
    if x is None or (x.shape[2] % PAD_TO == 0 and x.shape[3] % PAD_TO == 0):
        return x
    return F.pad(x, (0, -x.shape[3] % PAD_TO, 0, -x.shape[2] % PAD_TO), mode="replicate")
