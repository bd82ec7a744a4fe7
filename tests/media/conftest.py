from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def video(tmp_path) -> Path:
    path = tmp_path / "bear.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 40))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for t in range(8):
        writer.write(np.full((40, 64, 3), (200, 20, 25 * t), np.uint8))  # BGR
    writer.release()
    return path
