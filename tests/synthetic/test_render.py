import cv2
import numpy as np
import pytest

from hmhi.synthetic.motion import Camera, Curve, Path, Waves, random_waves
from hmhi.synthetic.render import Surface, fixed, paint
from hmhi.synthetic.textures import mirrored_tile

SIZE = (120, 140)
RIGHT, DOWN, AHEAD = np.eye(3)
CENTRE = np.array(
    [[0.01, 0, -0.7], [0, 0.01, -0.6], [0, 0, 1.0]]
)  # canvas pixels of a 140 x 120 picture to units


def smooth_picture(channels: int) -> np.ndarray:
    y, x = np.mgrid[0:120, 0:140].astype(np.float32)
    bands = [128 + 100 * np.sin(x / 9), 128 + 100 * np.sin(y / 8), 128 + 100 * np.sin((x + y) / 12)]
    if channels == 3:
        return mirrored_tile(np.dstack(bands).astype(np.uint8))
    return np.dstack([*bands, np.full_like(x, 255)]).astype(np.uint8)


def moving_camera(**curves: Curve) -> Camera:
    return Camera((150.0, 110.0), (70.0, 60.0), **curves)


CAMERAS = {
    "pan": moving_camera(yaw=Curve(0.02), pitch=Curve(-0.01)),
    "roll and zoom": moving_camera(roll=Curve(0.03), zoom=Curve(0.02)),
    "dolly": moving_camera(x=Curve(0.03), z=Curve(0.04)),
    "shake": moving_camera(yaw=Curve(0, (0.01,), (2.0,), (0.3,)), roll=Curve(0, (0.01,), (1.7,), (0.0,))),
}


def fetch(following: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    u, v = x + flow[..., 0], y + flow[..., 1]
    inside = (u >= 1) & (u < SIZE[1] - 2) & (v >= 1) & (v < SIZE[0] - 2)  # all that the interpolation reads
    return cv2.remap(following, u, v, interpolation=cv2.INTER_CUBIC), inside


@pytest.mark.parametrize("waves", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_flow_is_exact_to_a_fraction_of_a_pixel(camera, channels, waves):
    rng = np.random.default_rng(0)
    bend = random_waves(rng, 0.3, (0.4, 1.0), (8, 20)) if waves else None
    tilted = AHEAD * 0.3 + DOWN * 0.95
    surface = Surface(
        smooth_picture(channels), lambda t: camera.plane(t, AHEAD, RIGHT, tilted), fixed(CENTRE), bend
    )
    for t in (0.0, 5.0):
        now, later = paint([surface], t, SIZE), paint([surface], t + 1, SIZE)
        fetched, inside = fetch(later.image, now.flow)
        whole = now.image.min(axis=2) > 20  # away from where the canvas ends
        whole = cv2.erode((whole & inside & (fetched.min(axis=2) > 20)).astype(np.uint8), np.ones((5, 5))) > 0
        assert whole.sum() > 1500
        assert np.abs(now.flow[whole]).max() > 0.5
        # The picture changes by up to 12 levels a pixel, and 8-bit canvases round by half a level.
        assert np.percentile(np.abs(fetched - now.image)[whole], 99) < 1.5


def test_swinging_inner_motion_is_followed():
    def inner(t: float) -> np.ndarray:
        c, s = np.cos(0.05 * t), np.sin(0.05 * t)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ CENTRE

    camera = moving_camera()
    surface = Surface(smooth_picture(4), lambda t: camera.plane(t, AHEAD, RIGHT, DOWN), inner)
    now = paint([surface], 0.0, SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float64)
    across, along = (x - 70) / 150, (y - 60) / 110
    c, s = np.cos(0.05), np.sin(0.05)
    expected = np.stack(
        [(c * across - s * along) * 150 + 70 - x, (s * across + c * along) * 110 + 60 - y], axis=2
    )
    painted = now.flow.any(axis=2)
    assert painted.mean() > 0.5
    np.testing.assert_allclose(now.flow[painted], expected[painted], atol=1e-3)


def test_near_hides_far_and_ghosts_only_tint():
    camera = moving_camera()

    def board(depth: float, label: int, channels: int, ghost: bool = False) -> Surface:
        canvas = np.full((100, 100, channels), 255, np.uint8)
        canvas[..., :3] = label * 50
        canvas[..., 3:] = 128 if ghost else 255
        place = Path((0.0, 0.0, depth), x=Curve(0.02 * label))
        unit = np.array([[0.003, 0, -0.15], [0, 0.003, -0.15], [0, 0, 1]])
        return Surface(
            canvas, lambda t: camera.plane(t, place(t), RIGHT, DOWN), fixed(unit), label=label, ghost=ghost
        )

    wall, mover, veil = board(3, 1, 3), board(1, 2, 4), board(0.8, 4, 4, ghost=True)
    middle = (SIZE[0] // 2, SIZE[1] // 2)
    plain = paint([wall, mover], 0.0, SIZE)
    assert plain.label[middle] == 2
    assert plain.label[0, 0] == 1
    np.testing.assert_allclose(plain.flow[middle], (0.04 * 150, 0), atol=1e-3)
    np.testing.assert_allclose(plain.flow[0, 0], (0.02 * 150 / 3, 0), atol=1e-3)
    veiled = paint([wall, mover, veil], 0.0, SIZE)
    np.testing.assert_array_equal(veiled.label, plain.label)
    np.testing.assert_array_equal(veiled.flow, plain.flow)
    np.testing.assert_allclose(veiled.image[middle], 150, atol=1)


def test_ground_ends_at_the_horizon_and_nothing_shows_behind_the_camera():
    camera = moving_camera()
    ground = Surface(
        smooth_picture(3), lambda t: camera.plane(t, DOWN * 0.4, RIGHT, -AHEAD), fixed(CENTRE), label=3
    )
    painted = paint([ground], 0.0, SIZE)
    assert not painted.label[:60].any()
    assert painted.label[61:].all()
    behind = Surface(
        smooth_picture(4), lambda t: camera.plane(t, -AHEAD, RIGHT, DOWN), fixed(CENTRE), label=3
    )
    assert not paint([behind], 0.0, SIZE).label.any()


def test_waves_invert():
    rng = np.random.default_rng(3)
    waves = random_waves(rng, 0.35, (0.3, 1.0), (8, 20), 3)
    assert isinstance(waves, Waves)
    q = rng.uniform(-1, 1, (2, 500)).astype(np.float32)
    dx, dy = waves.offset(q[0], q[1], 4.0)
    back = waves.invert(q[0] + dx, q[1] + dy, 4.0, guess=(q[0] + dx, q[1] + dy), steps=12)
    np.testing.assert_allclose(back, q, atol=1e-4)


def test_a_camera_that_aims_keeps_its_target_in_the_middle():
    path = Path((0.0, 0.0, 1.0), x=Curve(0.05))
    for camera in (
        Camera((150.0, 110.0), (70.0, 60.0), target=path, aim=1.0),
        Camera((150.0, 110.0), (70.0, 60.0), target=path, ride=1.0),
    ):
        projection, eye = camera.matrix(12.0)
        x, y, depth = projection @ (path(12.0) - eye)
        np.testing.assert_allclose((x / depth, y / depth), (70, 60), atol=1e-6)
