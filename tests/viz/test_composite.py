import numpy as np
import pytest
from PIL import Image

from hmhi.errors import UserError
from hmhi.viz.composite import Background


def object_on_grey(size=(40, 60)):
    """A red square on grey, and its opacity."""
    frame = np.full((*size, 3), 100, dtype=np.uint8)
    opacity = np.zeros(size, dtype=np.float32)
    opacity[10:30, 20:40] = 1
    frame[10:30, 20:40] = (255, 0, 0)
    return frame, opacity


def test_a_colour():
    frame, opacity = object_on_grey()
    opacity[10] *= 0.5
    shown = Background("#0000ff").draw(frame, opacity)
    assert shown[0, 0].tolist() == [0, 0, 255]
    assert shown[20, 30].tolist() == [255, 0, 0]
    assert shown[10, 30].tolist() == [128, 0, 128]


def test_the_blur_holds_none_of_the_object():
    frame, opacity = object_on_grey()
    shown = Background("blur").draw(frame, opacity)
    assert np.array_equal(shown[12:28, 22:38], frame[12:28, 22:38])
    beside = shown[9, 20:40].astype(int)
    assert abs(beside - 100).max() <= 8, "no red halo"


@pytest.mark.parametrize("size", [(80, 30), (30, 80), (41, 61)])
def test_an_image_covers_the_frame(tmp_path, size):
    Image.new("RGB", size[::-1], (0, 200, 0)).save(tmp_path / "green.png")
    frame, opacity = object_on_grey()
    shown = Background(str(tmp_path / "green.png")).draw(frame, opacity)
    assert shown.shape == frame.shape
    assert (shown[opacity == 0] == (0, 200, 0)).all()


def test_neither_colour_nor_image():
    with pytest.raises(UserError, match="neither 'blur', nor an image file, nor a colour"):
        Background("no-such.png")
