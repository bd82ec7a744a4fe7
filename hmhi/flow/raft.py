"""RAFT (Teed and Deng, ECCV 2020) as torchvision ships it, with weights from a local file only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.optical_flow import (
    Raft_Large_Weights,
    Raft_Small_Weights,
    raft_large,
    raft_small,
)

from hmhi.config import Precision
from hmhi.errors import UserError
from hmhi.flow.estimate import check_frames
from hmhi.flow.weights import load_weights

_MODELS = {
    "raft": (raft_large, Raft_Large_Weights.C_T_SKHT_V2),
    "raft-small": (raft_small, Raft_Small_Weights.C_T_V2),
}
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_STRIDE = 8
_SMALLEST = 128  # pixels; the correlation pyramid needs 16 cells on its finest level


class RAFTEstimator:
    """RAFT flow between two frames of any size, padded to multiples of 8 and cropped back.

    Args:
        method: ``raft`` (large) or ``raft-small``.
        device: Torch device.
        weights: State-dict file; None takes the official file from torchvision's cache.
        updates: Refinement steps.
        precision: Autocast type.

    Raises:
        FileNotFoundError: No weights file; the message has the official URL and SHA-256 prefix.
        UserError: The file does not hold weights of this network.
    """

    def __init__(
        self,
        method: str,
        device: str = "cpu",
        weights: Path | None = None,
        updates: int = 12,
        precision: Precision = "fp32",
    ) -> None:
        self.weights = find_weights(method, weights)
        self.updates = updates
        self._device = torch.device(device)
        # of its own, so that flow and segmentation do not wait for each other's kernels
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._autocast = _AUTOCAST.get(precision)
        build, _ = _MODELS[method]
        self._network = build(weights=None)
        load_weights(self._network, self.weights, f"torchvision's {method} network")
        self._network.to(self._device).eval()

    def __call__(self, frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
        """See `hmhi.flow.estimate.FlowEstimator`."""
        check_frames(frame_a, frame_b)
        return self.batch(frame_a[None], frame_b[None])[0]

    @torch.inference_mode()
    def batch(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        """See `hmhi.flow.estimate.BatchEstimator`.

        Raises:
            UserError: The pairs do not fit into the GPU's memory.
        """
        with torch.cuda.stream(self._stream):
            return self._flow(frames_a, frames_b)

    def _flow(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        count, height, width = frames_a.shape[:3]
        frames = torch.from_numpy(np.concatenate([frames_a, frames_b])).to(self._device)
        frames = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        padded_height, padded_width = (
            max(_SMALLEST, -(-side // _STRIDE) * _STRIDE) for side in (height, width)
        )
        below, right = padded_height - height, padded_width - width
        frames = F.pad(frames, (0, right, 0, below), mode="replicate")
        try:
            with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
                flow = self._network(frames[:count], frames[count:], num_flow_updates=self.updates)[-1]
        except torch.OutOfMemoryError:
            raise UserError(
                f"{count} pairs of {width} x {height} do not fit into the memory of {self._device}; choose a "
                f"smaller batch, or smaller frames"
            ) from None
        return flow[:, :, :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()


def find_weights(method: str, weights: Path | None) -> Path:
    """The weights file that will be read.

    Raises:
        FileNotFoundError: It does not exist.
    """
    url = _MODELS[method][1].url
    name = url.rsplit("/", 1)[1]
    path = Path(weights) if weights is not None else Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    prefix = name.rsplit("-", 1)[1].removesuffix(".pth")
    raise FileNotFoundError(
        f"{method} weights not found at {path}; download {url} (SHA-256 begins with {prefix}) to that place, "
        "or give the file's path, or use the method dis, which needs no weights"
    )
