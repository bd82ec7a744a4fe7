"""What all prompted models share: objects in groups, given masks, padding, merging; the network is a subclass.

B videos, T frames, K objects of a video, R rows (objects of all videos), H W pixels, Hp Wp padded ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmhi.errors import UserError
from hmhi.layers.aggregate import soft_aggregate
from hmhi.layers.recompute import recomputed
from hmhi.memory.objects import Group, ObjectState
from hmhi.models.base import Traits


class PromptedNet(nn.Module):
    """Follows objects that masks name, one frame at a time.

    A subclass says how a frame is encoded, and how a group of objects reads and writes its memory.

    Args:
        detach_masks: In training, stop gradients where predicted masks enter the memory.

    Attributes:
        recompute_steps: Whether the backward pass of a clip computes each step anew, to keep less in memory.
    """

    traits: Traits

    def __init__(self, *, detach_masks: bool = False) -> None:
        super().__init__()
        self.detach_masks = detach_masks
        self.recompute_steps = False

    def parts_to_compile(self) -> Sequence[nn.Module]:
        """See `hmhi.models.base.VideoModel`."""
        raise NotImplementedError

    def encode(
        self, image: Tensor, state: ObjectState, valid: Tensor | None = None, *, learning: bool = False
    ) -> Any:
        """What is seen of a frame, once for all objects.

        Args:
            image: (B, 3, H, W) in [0, 1]; the model pads and normalises.
            state: Without groups nothing will be read from the memory, so that only `write` must be served.
            valid: (B, K) bool: the objects that exist; the rows of the groups are those, video by video. None stands
                for one video that all rows belong to.
            learning: The form that training takes.
        """
        raise NotImplementedError

    def begin(self, start: int, ids: Sequence[int], *, learning: bool = False) -> Group:
        """A group of objects with empty banks, given at frame `start`."""
        raise NotImplementedError

    def read(
        self,
        features: Any,
        owner: Tensor,
        group: Group,
        frame: int,
        *,
        learning: bool = False,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Group]:
        """Find a group's objects in a frame.

        Args:
            features: From `encode`.
            owner: (R,) int64: which video of the batch a row belongs to.
            group: The objects and their banks.
            frame: Number of the frame in the video.
            learning: The form that training takes.
            dropout: Rate of what training leaves out.

        Returns:
            (R, Hp, Wp) probability of each object by itself, and the group after the read.
        """
        raise NotImplementedError

    def write(
        self,
        features: Any,
        owner: Tensor,
        group: Group,
        masks: Tensor,
        others: Tensor,
        frame: int,
        *,
        pinned: bool,
    ) -> Group:
        """Remember a frame.

        Args:
            features: From `encode`.
            owner: As for `read`.
            group: The objects and their banks.
            masks: (R, Hp, Wp) probability of each object.
            others: (R, Hp, Wp) that of all other objects of the video, in [0, 1].
            frame: As for `read`.
            pinned: Whether the frame is kept for good.
        """
        raise NotImplementedError

    def remember_frame(self, features: Any, state: ObjectState, *, learning: bool = False) -> ObjectState:
        """What is remembered of a frame beside its objects; here nothing.

        Args:
            features: From `encode`.
            state: Groups after the write of this frame, whose number is `state.frame`.
            learning: The form that training takes.
        """
        return state

    def start(self) -> ObjectState:
        """The state that a video begins with."""
        return ObjectState()

    def step(
        self,
        image: Tensor,
        state: ObjectState,
        given: Mapping[int, Tensor] | None = None,
        *,
        write: bool = True,
    ) -> tuple[Tensor, ObjectState]:
        """Segment the next frame of a video.

        A given mask holds for the whole frame: its object is there and nowhere else, and no other object is
        there. Objects that are known already are corrected, others join. Before the first mask all is background,
        and the network does not run.

        Args:
            image: (1, 3, H, W) float in [0, 1], not normalised; any H and W.
            state: `start()`, or what the last step returned.
            given: Number of an object to its mask, (H, W) bool.
            write: False spares the memory encoder where no further frame will come.

        Returns:
            (K + 1, H, W) float32 probabilities that sum to 1, background first and then the objects in the order
            of the new state's `ids`; and that state. The state given is left as it was.

        Raises:
            UserError: A given mask is empty, overlaps another one, or is of another size.
            ValueError: The image has another shape, or another size than the frames before.
        """
        size = self._check_image(image, state)
        given = {number: mask.to(image.device) for number, mask in (given or {}).items()}
        _check_given(given, size, state.frame)
        state = replace(state, size=size)
        if not state.groups and not given:
            return image.new_ones(1, *size, dtype=torch.float32), replace(state, frame=state.frame + 1)

        features = self.encode(image, state)
        prob, groups = self._find(features, state, size)
        if given:
            new = tuple(number for number in given if number not in state.ids)
            prob = override(prob, (*state.ids, *new), given)
            if new:
                groups.append(self.begin(state.frame, new))
        if write:
            groups = self._remember(features, groups, prob[1:], state.frame, given)
        state = replace(state, groups=tuple(groups))
        if write:
            state = self.remember_frame(features, state)
        return prob, replace(state, frame=state.frame + 1)

    def forward(self, images: Tensor, masks: Tensor, valid: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Segment clips, as training does.

        Args:
            images: (B, T, 3, H, W) float in [0, 1], not normalised.
            masks: (B, K, H, W) bool or {0, 1}: the objects in frame 0.
            valid: (B, K) bool: which of them exist; at least one.
            dropout: Rate of what the model leaves out in training; follows the progress of a run.

        Returns:
            (B, T - 1, K + 1, H, W) merged logits of the frames from 1 on; -inf for objects that do not exist.
        """
        videos, frames = images.shape[:2]
        owner = valid.nonzero()[:, 0]  # (R,)
        soft = masks[valid].to(images.dtype)  # (R, H, W)
        group = self.begin(0, range(1, len(owner) + 1), learning=True)
        state = ObjectState()
        clip = []
        encode, read, write = self.encode, self.read, self.write
        if self.recompute_steps:
            encode, read, write = (recomputed(self, part) for part in (encode, read, write))
        for t in range(frames):
            features = encode(images[:, t], state, valid, learning=True)
            if t > 0:
                prob, group = read(features, owner, group, t, learning=True, dropout=dropout)
                logits = soft_aggregate(crop(prob, images.shape[-2:], self.traits.pad_to), valid)
                clip.append(logits)  # (B, K + 1, H, W)
                soft = logits.softmax(dim=1)[:, 1:][valid]  # (R, H, W)
                soft = soft.detach() if self.detach_masks else soft
            if t < frames - 1:
                masks = pad(soft, self.traits.pad_to)  # (R, Hp, Wp)
                others = other_objects(masks, owner, videos)
                group = write(features, owner, group, masks, others, t, pinned=t == 0)
                state = self.remember_frame(features, replace(state, groups=(group,)), learning=True)
            state = replace(state, frame=t + 1)
        return torch.stack(clip, dim=1)  # (B, T - 1, K + 1, H, W)

    def _find(self, features: Any, state: ObjectState, size: tuple[int, int]) -> tuple[Tensor, list[Group]]:
        """Merged probabilities (K + 1, H, W) of the objects that are known, and their groups after the read."""
        if not state.groups:
            return torch.ones(1, *size, device=self.device), []
        probs, groups = [], []
        for group in state.groups:
            owner = torch.zeros(len(group.ids), dtype=torch.int64, device=self.device)
            prob, read = self.read(features, owner, group, state.frame)
            probs.append(prob)
            groups.append(read)
        merged = soft_aggregate(crop(torch.cat(probs), size, self.traits.pad_to))  # (1, K + 1, H, W)
        return merged[0].softmax(dim=0), groups

    def _remember(
        self, features: Any, groups: list[Group], prob: Tensor, frame: int, given: Mapping[int, Tensor]
    ) -> list[Group]:
        masks = pad(prob, self.traits.pad_to)  # (K, Hp, Wp)
        owner = torch.zeros(len(masks), dtype=torch.int64, device=masks.device)
        others = other_objects(masks, owner, 1)
        written, first = [], 0
        for group in groups:
            rows = slice(first, first + len(group.ids))
            pinned = any(number in given for number in group.ids)
            written.append(
                self.write(features, owner[rows], group, masks[rows], others[rows], frame, pinned=pinned)
            )
            first = rows.stop
        return written

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    def _check_image(self, image: Tensor, state: ObjectState) -> tuple[int, int]:
        if image.dim() != 4 or image.shape[:2] != (1, 3):
            raise ValueError(f"image must have shape (1, 3, H, W), got {tuple(image.shape)}")
        size = (image.shape[2], image.shape[3])
        if state.size not in (None, size):
            raise ValueError(
                f"frame {state.frame} has size {size}, those before it have {state.size}; start a new state when "
                f"the frame size changes"
            )
        return size


def _check_given(given: Mapping[int, Tensor], size: tuple[int, int], frame: int) -> None:
    claimed: Tensor | None = None
    for number, mask in given.items():
        if tuple(mask.shape) != size or mask.dtype != torch.bool:
            raise UserError(
                f"the mask of object {number} at frame {frame} must be bool of shape {size}, got {mask.dtype} of "
                f"{tuple(mask.shape)}"
            )
        if not mask.any():
            raise UserError(
                f"the mask of object {number} at frame {frame} is empty; leave it out, or mark the object"
            )
        if claimed is not None and (claimed & mask).any():
            raise UserError(f"the mask of object {number} at frame {frame} overlaps that of another object")
        claimed = mask if claimed is None else claimed | mask


def override(prob: Tensor, ids: tuple[int, ...], given: Mapping[int, Tensor]) -> Tensor:
    """Probabilities (K + 1, H, W) of all `ids`, where given masks stand above predictions (K' + 1, H, W)."""
    named = torch.stack(list(given.values())).any(dim=0)  # (H, W)
    nothing = torch.zeros_like(prob[0])
    predicted = dict(zip(ids, prob[1:].masked_fill(named, 0.0), strict=False))  # new objects have none
    objects = torch.stack(
        [given[number].to(prob) if number in given else predicted.get(number, nothing) for number in ids]
    )  # (K, H, W)
    return torch.cat((1.0 - objects.sum(dim=0, keepdim=True), objects))  # (K + 1, H, W)


def other_objects(masks: Tensor, owner: Tensor, videos: int) -> Tensor:
    """(R, H, W): the sum of all other objects of the same video, at most 1."""
    total = masks.new_zeros(videos, *masks.shape[1:]).index_add(0, owner, masks)  # (B, H, W)
    return (total[owner] - masks).clamp(0.0, 1.0)


def margins(size: Sequence[int], multiple: int) -> tuple[int, int, int, int]:
    """Pixels left, right, above and below that make both sides multiples; the odd pixel goes right or below."""
    height, width = (-side % multiple for side in size)
    return width // 2, width - width // 2, height // 2, height - height // 2


def pad(x: Tensor, multiple: int) -> Tensor:
    """Zeros around (..., H, W), so that both sides are multiples."""
    return F.pad(x, margins(x.shape[-2:], multiple))


def crop(x: Tensor, size: Sequence[int], multiple: int) -> Tensor:
    """What `pad` was given, (..., H, W)."""
    left, _, top, _ = margins(size, multiple)
    return x[..., top : top + size[0], left : left + size[1]]
