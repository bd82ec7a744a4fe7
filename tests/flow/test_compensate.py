import numpy as np
import pytest

from hmhi.flow.compensate import COMPENSATIONS, compensate_camera, join_directions

HEIGHT, WIDTH = 90, 120
Y, X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
OBJECT = (slice(30, 60), slice(40, 70))  # a twelfth of the frame


def camera_flow(model: np.ndarray) -> np.ndarray:
    depth = model[2, 0] * X + model[2, 1] * Y + model[2, 2]
    x = (model[0, 0] * X + model[0, 1] * Y + model[0, 2]) / depth
    y = (model[1, 0] * X + model[1, 1] * Y + model[1, 2]) / depth
    return np.stack([x - X, y - Y], axis=2).astype(np.float32)


CAMERAS = {
    "median": np.array([[1, 0, 5.0], [0, 1, -3], [0, 0, 1]]),
    "affine": np.array([[1.03, 0.02, 2.0], [-0.03, 0.98, 1], [0, 0, 1]]),
    "homography": np.array([[1.02, 0.01, 2.0], [-0.02, 1.01, -3], [2e-4, -3e-4, 1]]),
}


@pytest.mark.parametrize("unit", [1.0, 0.01])
@pytest.mark.parametrize("method", CAMERAS)
def test_camera_goes_and_the_object_stays(method, unit):
    flow = camera_flow(CAMERAS[method])
    flow[OBJECT] += (6, 4)
    left = compensate_camera(flow * np.float32(unit), method) / unit
    assert left.dtype == np.float32
    np.testing.assert_allclose(np.median(left[OBJECT], axis=(0, 1)), (6, 4), atol=0.3)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[OBJECT] = False
    assert np.abs(left[outside]).max() < 0.5


def test_none_changes_nothing_and_zero_stays_zero():
    flow = camera_flow(CAMERAS["affine"])
    np.testing.assert_array_equal(compensate_camera(flow, "none"), flow)
    for method in COMPENSATIONS:
        assert not compensate_camera(np.zeros((40, 40, 2), np.float32), method).any()


def test_same_input_same_result():
    flow = camera_flow(CAMERAS["homography"]) + np.random.default_rng(0).normal(0, 1, (HEIGHT, WIDTH, 2))
    first, second = (compensate_camera(flow.astype(np.float32), "homography") for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="'rigid'; choose one of none, median, affine, homography"):
        compensate_camera(np.ones((8, 8, 2), np.float32), "rigid")


def test_joined_directions_keep_the_object_and_lose_what_one_direction_dreams_up():
    camera = camera_flow(CAMERAS["homography"])
    forward, backward = camera.copy(), -camera
    forward[OBJECT] += (6, 4)
    backward[OBJECT] -= (6, 4)
    beside, before = (slice(30, 60), slice(70, 76)), (slice(30, 60), slice(34, 40))
    forward[beside] += (6, 4)  # as if the ground that the object covers next went along
    backward[before] -= (6, 4)
    joined = join_directions(forward, backward, "homography")
    assert joined.dtype == np.float32
    np.testing.assert_allclose(np.median(joined[OBJECT], axis=(0, 1)), (6, 4), atol=0.3)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[OBJECT] = False
    assert np.abs(joined[outside]).max() < 0.5
    assert np.abs(compensate_camera(forward, "homography")[beside]).min() > 3


def test_at_the_ends_of_a_video_one_direction_is_joined():
    forward = camera_flow(CAMERAS["affine"])
    forward[OBJECT] += (6, 4)
    expected = compensate_camera(forward, "affine")
    np.testing.assert_array_equal(join_directions(forward, None, "affine"), expected)
    np.testing.assert_array_equal(join_directions(None, -forward, "affine"), expected)
    with pytest.raises(ValueError, match="without neighbours"):
        join_directions(None, None, "affine")
