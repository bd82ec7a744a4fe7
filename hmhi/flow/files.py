"""Read stored flow maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmhi.errors import BadFileError
from hmhi.flow.codec import flow_to_rgb, read_flo
from hmhi.media.pictures import SHAPE_TOLERANCE, read_rgb, read_size


def read_flow_rgb(path: Path) -> np.ndarray:
    """Read a flow map as colour-wheel RGB, uint8 (H, W, 3), from a picture or a ``.flo`` file.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not readable, or flow that is not finite.
    """
    if path.suffix.lower() != ".flo":
        return read_rgb(path)
    flow = read_flo(path)
    try:
        return flow_to_rgb(flow)
    except ValueError as error:
        raise BadFileError(f"{path}: {error}") from None


def check_shape(flow: np.ndarray, image: np.ndarray, name: str) -> None:
    """Refuse a flow picture whose aspect is not that of its frame, such as a rotated one; its size may differ.

    Args:
        flow: (h, w, 3).
        image: (H, W, 3).
        name: Of the flow picture, for the message.

    Raises:
        BadFileError: The aspects differ by more than rounding.
    """
    (rows, columns), (height, width) = flow.shape[:2], image.shape[:2]
    if abs(columns / rows / (width / height) - 1) > SHAPE_TOLERANCE:
        raise BadFileError(
            f"{name}: flow is {columns}x{rows}, which is not the shape of its {width}x{height} image"
        )


def read_flow_size(path: Path) -> tuple[int, int]:
    """Height and width of a flow map, of a picture from its header alone.

    Raises:
        FileNotFoundError: No such file.
        BadFileError: Not readable.
    """
    if path.suffix.lower() != ".flo":
        return read_size(path)
    height, width = read_flow_rgb(path).shape[:2]
    return height, width
