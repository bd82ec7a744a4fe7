import os
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import flow_to_image

from hmhi.errors import BadFileError
from hmhi.flow.codec import flow_to_rgb, mirror_rgb, read_flo, rgb_to_flow, write_flo
from hmhi.media.files import MAX_BYTES


def wide_flow(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    """Every direction and magnitude: two smooth ramps plus noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (np.stack([x, y], 2) * 7 + rng.normal(0, 0.1, (height, width, 2))).astype(np.float32)


def torchvision_rgb(flow: np.ndarray) -> np.ndarray:
    return flow_to_image(torch.from_numpy(flow).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def largest_difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_colours_equal_torchvision_to_one_level(scale):
    for seed in range(5):
        flow = wide_flow(seed) * np.float32(scale)
        expected = torchvision_rgb(flow)
        assert expected.std() > 20  # a picture with colours in it
        assert largest_difference(flow_to_rgb(flow), expected) <= 1


def test_pure_directions_equal_torchvision():
    for direction in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1e-3), (1, 1e-3)]:
        flow = np.tile(np.float32(direction), (4, 5, 1))
        assert largest_difference(flow_to_rgb(flow), torchvision_rgb(flow)) <= 1, direction


def test_zero_flow_is_white():
    assert (flow_to_rgb(np.zeros((4, 6, 2), np.float32)) == 255).all()
    still_and_moving = np.zeros((4, 6, 2), np.float32)
    still_and_moving[0, 0] = 3, 4
    assert (flow_to_rgb(still_and_moving)[1:] == 255).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_flow_is_refused(bad):
    flow = np.zeros((4, 6, 2), np.float32)
    flow[1, 2, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinite at 1 of 24 pixels"):
        flow_to_rgb(flow)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(H, W, 2\)"):
        flow_to_rgb(np.zeros((2, 4, 6), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        rgb_to_flow(np.zeros((4, 6, 3), np.float32))


def test_colours_read_back_to_the_flow_over_its_maximum():
    flow = wide_flow(0)
    normalised = flow / np.linalg.norm(flow, axis=2).max()
    error = np.linalg.norm(rgb_to_flow(flow_to_rgb(flow)) - normalised, axis=2)
    assert error.mean() < 0.004
    assert error.max() < 0.02


def test_mirror_then_encode_equals_encode_then_mirror():
    flow = wide_flow(3)
    mirrored = flow[:, ::-1] * np.float32([-1, 1])
    difference = np.abs(flow_to_rgb(mirrored).astype(int) - mirror_rgb(flow_to_rgb(flow)))
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 4
    left_right_only = np.abs(flow_to_rgb(mirrored).astype(int) - flow_to_rgb(flow)[:, ::-1])
    assert left_right_only.mean() > 30


def test_mirror_twice_returns_the_picture():
    rgb = flow_to_rgb(wide_flow(4))
    difference = np.abs(mirror_rgb(mirror_rgb(rgb)).astype(int) - rgb)
    assert np.percentile(difference, 99) <= 4
    assert (mirror_rgb(np.full((3, 5, 3), 255, np.uint8)) == 255).all()


def test_stored_flow_decodes_and_redraws(shared_data):
    rgb = np.asarray(Image.open(shared_data / "davis16" / "Flow" / "camel" / "00010.jpg").convert("RGB"))
    flow = rgb_to_flow(rgb)
    length = np.linalg.norm(flow, axis=2)
    assert 0.5 < np.percentile(length, 99.9) <= 1.01
    assert np.abs(flow_to_rgb(flow).astype(int) - rgb).mean() < 6


def test_flo_files_round_trip(tmp_path):
    flow = wide_flow(1)
    write_flo(tmp_path / "new" / "a.flo", flow)
    np.testing.assert_array_equal(read_flo(tmp_path / "new" / "a.flo"), flow)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.flo"]


@pytest.mark.parametrize("content", [b"", b"PNG", b"PIEH\x02\0\0\0\x02\0\0\0" + b"\0" * 31])
def test_damaged_flo_names_the_file(tmp_path, content):
    path = tmp_path / "broken.flo"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.flo"):
        read_flo(path)


def test_encoding_is_fast_enough_for_a_loader():
    flow = wide_flow(0, 256, 256)
    flow_to_rgb(flow)
    start = time.perf_counter()
    for _ in range(10):
        flow_to_rgb(flow)
    assert (time.perf_counter() - start) / 10 < 0.05


def test_a_flow_map_too_large_to_read_or_no_file(tmp_path):
    for name, size in (("hole.flo", MAX_BYTES + 1), ("pipe.flo", None)):
        if size is None:
            os.mkfifo(tmp_path / name)
        else:
            with (tmp_path / name).open("wb") as stream:
                stream.truncate(size)
        with pytest.raises(BadFileError, match=name):
            read_flo(tmp_path / name)


def test_flow_in_a_zip_file(tmp_path):
    flow = np.ones((3, 4, 2), np.float32)
    write_flo(tmp_path / "0.flo", flow)
    with zipfile.ZipFile(tmp_path / "bear.zip", "w") as archive:
        archive.write(tmp_path / "0.flo", "0.flo")
    np.testing.assert_array_equal(read_flo(tmp_path / "bear.zip" / "0.flo"), flow)
