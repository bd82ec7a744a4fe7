"""Optical flow between two frames: OpenCV DIS (needs nothing), GMFlow (a package), RAFT (a weights file).

Example:
    >>> estimator = build_estimator("dis")
    >>> flow = estimator(frame_a, frame_b)  # (H, W, 2) float32: where each pixel of frame_a goes
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from hmhi.config import Precision
from hmhi.errors import UserError

METHODS = ("dis", "gmflow", "raft", "raft-small")
_DIS_SMALLEST = 32  # pixels; its coarsest patches do not fit into less
_DIS_PIXELS = 576 * 320


class FlowEstimator(Protocol):
    """Anything that turns two frames into the flow from the first to the second.

    Those of `build_estimator` may be called from several threads at once.
    """

    def __call__(self, frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
        """Flow from `frame_a` to `frame_b`.

        Args:
            frame_a: (H, W, 3) uint8 RGB.
            frame_b: Of the same shape.

        Returns:
            (H, W, 2) float32 in pixels, x then y.
        """
        ...


@runtime_checkable
class BatchEstimator(FlowEstimator, Protocol):
    """An estimator that is faster on several pairs at a time."""

    def batch(self, frames_a: np.ndarray, frames_b: np.ndarray) -> np.ndarray:
        """Flow of B pairs, each as if it were alone.

        Args:
            frames_a: (B, H, W, 3) uint8 RGB.
            frames_b: Of the same shape.

        Returns:
            (B, H, W, 2) float32 in pixels, x then y.
        """
        ...


@runtime_checkable
class ReducingEstimator(FlowEstimator, Protocol):
    """An estimator that reduces large frames; who does so first saves work, and gets flow of that size."""

    def reduce(self, frame: np.ndarray) -> np.ndarray:
        """The (H, W, 3) uint8 frame at the size that the estimator works on; one that is small enough as it is."""
        ...


def build_estimator(
    method: str, device: str = "cpu", weights: Path | None = None, precision: Precision = "fp32"
) -> FlowEstimator:
    """An estimator by name.

    Args:
        method: One of `METHODS`.
        device: Torch device of the networks; DIS always runs on the CPU.
        weights: Weights file; None takes GMFlow's from its package and RAFT's from torchvision's cache. Never
            downloads.
        precision: Autocast type of RAFT. GMFlow runs in bf16 wherever the device is fast in it.

    Raises:
        UserError: Unknown method, weights given for DIS, weights that are damaged or another network's, or GMFlow's
            are not there; the message says what to type.
        FileNotFoundError: RAFT's weights are not there; the message says where to get them.
    """
    if method not in METHODS:
        raise UserError(f"unknown flow method {method!r}; choose one of {', '.join(METHODS)}")
    if method == "dis":
        if weights is not None:
            raise UserError(f"DIS has no weights, but {weights} was given; drop it, or choose gmflow or raft")
        return DISEstimator()
    # DIS users need not wait for torch to load.
    if method == "gmflow":
        from hmhi.flow.gmflow import GMFlowEstimator, load_gmflow

        return GMFlowEstimator(load_gmflow(weights), device)
    from hmhi.flow.raft import RAFTEstimator

    return RAFTEstimator(method, device, weights, precision=precision)


def find_weights(method: str, weights: Path | None = None) -> Path | None:
    """The weights file that `build_estimator` reads, or the error that it raises without one; None for DIS."""
    if method == "dis":
        return None
    if method == "gmflow":
        from hmhi.flow import gmflow

        return gmflow.find_weights(weights)
    from hmhi.flow import raft

    return raft.find_weights(method, weights)


class DISEstimator:
    """Dense inverse search (Kroeger et al., ECCV 2016) by OpenCV: preset FAST, but down to single pixels.

    Larger frames are first reduced to about 576 x 320 pixels, which is more accurate than to search the large frame
    down to blocks, and hardly slower for 4K than for 480p.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()  # OpenCV's object serves one call at a time

    def __call__(self, frame_a: np.ndarray, frame_b: np.ndarray) -> np.ndarray:
        """See `FlowEstimator`."""
        check_frames(frame_a, frame_b)
        small_a, small_b = self.reduce(frame_a), self.reduce(frame_b)
        rows, columns = small_a.shape[:2]
        below, right = max(0, _DIS_SMALLEST - rows), max(0, _DIS_SMALLEST - columns)
        grey_a, grey_b = (
            cv2.copyMakeBorder(
                cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 0, below, 0, right, cv2.BORDER_REPLICATE
            )
            for frame in (small_a, small_b)
        )
        flow = np.ascontiguousarray(self._dis().calc(grey_a, grey_b, None)[:rows, :columns])
        height, width = frame_a.shape[:2]
        if (rows, columns) == (height, width):
            return flow
        flow = cv2.resize(flow, dsize=(width, height), interpolation=cv2.INTER_LINEAR)
        return flow * np.array([width / columns, height / rows], np.float32)

    def reduce(self, frame: np.ndarray) -> np.ndarray:
        """See `ReducingEstimator`."""
        height, width = frame.shape[:2]
        scale = math.sqrt(_DIS_PIXELS / (height * width))
        if scale >= 1:
            return frame
        # Rounded down, so that the result is small enough.
        size = max(1, int(width * scale)), max(1, int(height * scale))
        return cv2.resize(frame, dsize=size, interpolation=cv2.INTER_AREA)

    def _dis(
        self,
    ) -> Any:  # OpenCV's type stubs forbid the None that its documentation uses for "no initial flow"
        if not hasattr(self._of_thread, "dis"):
            dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
            dis.setFinestScale(0)
            dis.setGradientDescentIterations(12)  # of 16
            dis.setVariationalRefinementIterations(3)  # of 5
            self._of_thread.dis = dis
        return self._of_thread.dis


def check_frames(frame_a: np.ndarray, frame_b: np.ndarray) -> None:
    """Raise ValueError unless both are (H, W, 3) uint8 of one shape."""
    for frame in (frame_a, frame_b):
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"frames must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    if frame_a.shape != frame_b.shape:
        raise UserError(f"both frames must be of one size, got {frame_a.shape} and {frame_b.shape}")
