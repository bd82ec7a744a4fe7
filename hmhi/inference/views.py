"""What the network sees of a video: the video itself, and where asked for the mirrored one beside it.

Each view is a row of the batch, with a memory of its own. The rows of a frame are neighbours: V views, B frames, h w
pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hmhi.data.transforms import to_chw
from hmhi.flow.codec import mirror_rgb
from hmhi.inference.flow_stage import PreparedFrame


def count_views(tta: str) -> int:
    """V for a value of ``infer.tta``."""
    return 2 if tta == "flip" else 1


def view_inputs(frames: Sequence[PreparedFrame], views: int) -> tuple[list[Tensor], list[Tensor]]:
    """Images and flow pictures of B frames, B * views tensors (3, h, w) uint8 each.

    A mirrored flow picture is recoloured, since motion to the right becomes motion to the left; training mirrors its
    clips in the same way.
    """
    images, flows = [], []
    for frame in frames:
        images.append(frame.image_input)
        flows.append(frame.flow_input)
        if views == 2:
            images.append(frame.image_input.flip(-1))
            flows.append(to_chw(mirror_rgb(frame.flow_input.permute(1, 2, 0).numpy())))
    return images, flows


def merge_views(probs: Tensor) -> Tensor:
    """Probabilities of a frame, (1, H, W), from those of its views, (V, 1, H, W)."""
    return probs[0] if len(probs) == 1 else (probs[0] + probs[1].flip(-1)) / 2
