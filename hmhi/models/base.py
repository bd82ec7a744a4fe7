"""What the rest of the package may know about a model, whichever it is.

B videos, T frames, K objects of a video, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from hmhi.config import Kind
from hmhi.memory.objects import ObjectState

NAMES: dict[Kind, str] = {"hmhi": "HMHI-Net", "hmmn": "HMMN", "stma": "STMA"}
"""Kind of a network to the name that its authors gave it."""


@dataclass(frozen=True)
class Traits:
    """How a model wants to be used."""

    kind: Kind
    prompted: bool
    """Needs masks of the objects."""
    reads_flow: bool
    """Needs optical flow beside the image."""
    pad_to: int
    """Multiple of pixels that the model pads its input to, inside."""
    short_side: int | None
    """Pixels of the input's short side, aspect kept; None for a fixed size, aspect not kept."""


class VideoModel(Protocol):
    """Any model of this package; also an `nn.Module`."""

    recompute_steps: bool
    """Whether the backward pass of a clip computes each step anew, to keep less in memory."""

    @property
    def traits(self) -> Traits:
        """How the model wants to be used."""
        ...

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """Modules that gain from `module.compile()`; the rest changes shape while the memory fills."""
        ...


class PromptedModel(VideoModel, Protocol):
    """A model that follows objects given by masks."""

    def start(self) -> ObjectState:
        """The state that a video begins with."""
        ...

    def step(
        self,
        image: Tensor,
        state: ObjectState,
        given: Mapping[int, Tensor] | None = None,
        *,
        write: bool = True,
    ) -> tuple[Tensor, ObjectState]:
        """Segment one frame; see `hmhi.models.prompted.PromptedNet.step`."""
        ...

    def forward(self, images: Tensor, masks: Tensor, valid: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Segment clips in training; see `hmhi.models.prompted.PromptedNet.forward`."""
        ...
