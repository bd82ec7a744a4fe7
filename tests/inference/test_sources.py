"""Every kind of source, what is kept of it, and what odd or damaged input gives."""

import io
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hmhi.errors import BadFileError
from hmhi.inference.positions import parse_position
from hmhi.inference.sources import open_source

SIZE = (40, 64)


def picture(t, size=SIZE):
    """Grey level 20 t (t below 12), with an opaque edge that tells left from right."""
    rgb = np.full((*size, 3), 20 * t, dtype=np.uint8)
    rgb[:, :8] = 255
    return rgb


def level(image):
    return round(float(image[4:-4, 16:-4].mean()) / 20)


def write_frames(folder, count=6, suffix="png", digits=5):
    folder.mkdir(parents=True)
    for t in range(count):
        Image.fromarray(picture(t)).save(folder / f"{t:0{digits}d}.{suffix}")
    return folder


def write_video(path, count=6, size=SIZE, fps=10.0):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (size[1], size[0]))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for t in range(count):
        writer.write(picture(t % 12, size))
    writer.release()
    return path


def ffmpeg(*arguments):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this ffmpeg cannot make the video: {done.stderr.strip()}")


@pytest.fixture(params=["folder", "zip", "video", "list", "array", "generator", "paths", "bytes", "stream"])
def source(request, tmp_path):
    kind = request.param
    arrays = [picture(t) for t in range(6)]
    if kind == "video":
        return write_video(tmp_path / "clip.avi")
    if kind in ("bytes", "stream"):
        content = write_video(tmp_path / "clip.avi").read_bytes()
        return content if kind == "bytes" else io.BytesIO(content)
    if kind in ("list", "array", "generator"):
        return {"list": arrays, "array": np.stack(arrays), "generator": (array for array in arrays)}[kind]
    folder = write_frames(tmp_path / "clip")
    if kind == "zip":
        return Path(shutil.make_archive(str(folder), "zip", folder))
    return folder if kind == "folder" else sorted(folder.iterdir())


def test_every_kind_gives_the_same_frames(source):
    opened = open_source(source)
    frames = list(opened)
    assert [frame.index for frame in frames] == list(range(6))
    assert [level(frame.image) for frame in frames] == list(range(6))
    assert all(frame.image.shape == (*SIZE, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert opened.length in (6, None)
    if opened.stems is not None:
        assert opened.name == "clip"
        assert opened.stems == tuple(f"{t:05d}" for t in range(6))


def test_a_stretch_keeps_the_numbers_of_the_source(source):
    opened = open_source(source, start=1, end=6, every=2)
    assert [(frame.index, level(frame.image)) for frame in opened] == [(1, 1), (3, 3), (5, 5)]
    assert opened.length in (3, None)


def test_the_next_frame_is_the_very_one_after(source):
    found = list(open_source(source, start=1, end=4, every=2).neighbours())
    assert [(frame.index, level(following)) for frame, following, _ in found] == [(1, 2), (3, 4)]
    assert all(previous is None for _, _, previous in found)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("following", [True, False])
def test_the_previous_frame_is_the_very_one_before(source, every, following):
    found = open_source(source, start=1, every=every).neighbours(following=following, previous=True)
    for frame, after, before in found:
        assert level(frame.image) == frame.index
        assert before is None if frame.index == 1 else level(before) == frame.index - 1
        assert after is None if frame.index == 5 or not following else level(after) == frame.index + 1


def test_the_last_frame_has_no_next_one(source):
    found = list(open_source(source, start=4).neighbours())
    assert [(frame.index, following is None) for frame, following, _ in found] == [(4, False), (5, True)]


def test_only_what_is_needed_is_decoded(tmp_path):
    folder = write_frames(tmp_path / "clip")
    for t in (0, 2, 3, 5):
        (folder / f"{t:05d}.png").write_bytes(b"")  # would be an error if it was read
    assert [frame.index for frame in open_source(folder, start=1, every=3)] == [1, 4]


def test_names_are_sorted_by_their_numbers(tmp_path):
    opened = open_source(write_frames(tmp_path / "clip", 12, digits=1))
    assert opened.stems == tuple(str(t) for t in range(12))


def test_a_single_image_is_a_video_of_one_frame(tmp_path):
    opened = open_source(write_frames(tmp_path / "clip") / "00003.png")
    ((frame, following, previous),) = opened.neighbours(previous=True)
    assert level(frame.image) == 3
    assert following is None and previous is None


def test_seconds(tmp_path):
    video = write_video(tmp_path / "clip.avi", fps=10.0)
    opened = open_source(video, start="0.2s", end="0.5s")
    assert opened.fps == pytest.approx(10.0)
    assert [(frame.index, frame.time) for frame in opened] == [
        (2, pytest.approx(0.2)), (3, pytest.approx(0.3)), (4, pytest.approx(0.4)),
    ]  # fmt: skip
    assert opened.length == 3
    folder = write_frames(tmp_path / "frames")
    assert [frame.time for frame in open_source(folder)][:2] == [None, None]
    assert [frame.index for frame in open_source(folder, start="2s", fps=2.0)] == [4, 5]
    with pytest.raises(ValueError, match="it has no times; give fps or a frame number"):
        open_source(folder, start="2s")


@pytest.mark.parametrize("text", ["2.5", 2.5, "-1", "-1s", "nans", "infs", "s", "start", "1e3s4"])
def test_positions_that_make_no_sense(text):
    with pytest.raises(ValueError, match=f"start must be a frame number .* got {text!r}"):
        parse_position(text, "start")


def test_variable_frame_rate_has_the_stamps_of_the_container(tmp_path):
    folder = write_frames(tmp_path / "frames", 8)
    stamps = [0, 1, 2, 6, 7, 12, 13, 20]  # tenths of a second
    moments = "+".join(f"eq(N,{n})*{stamp}" for n, stamp in enumerate(stamps)).replace(",", r"\,")
    for name in ("clip.mp4", "clip.mkv"):
        ffmpeg(
            "-framerate", 100, "-i", folder / "%05d.png", "-vf", f"setpts=({moments})*10+.1", "-vsync", "vfr",
            "-c:v", "mpeg4", tmp_path / name,
        )  # fmt: skip
        frames = list(open_source(tmp_path / name))
        assert [frame.time for frame in frames] == pytest.approx([s / 10 for s in stamps], abs=2e-3)
        late = open_source(tmp_path / name, start="0.65s", end="1.3s")
        assert [frame.index for frame in late] == [4, 5]


def test_a_bare_stream_has_times_by_its_frame_rate(tmp_path):
    folder = write_frames(tmp_path / "frames")
    ffmpeg("-framerate", 25, "-i", folder / "%05d.png", "-c:v", "libx264", tmp_path / "clip.h264")
    times = [frame.time for frame in open_source(tmp_path / "clip.h264")]
    assert times == pytest.approx([t / 25 for t in range(6)])


def test_rotation_of_a_video_is_applied_and_that_of_an_image_is_not(tmp_path):
    video = tmp_path / "clip.mp4"
    ffmpeg("-framerate", 10, "-i", write_frames(tmp_path / "frames") / "%05d.png", "-c:v", "mpeg4", video)
    turned = tmp_path / "turned.mp4"
    try:
        ffmpeg("-display_rotation", 90, "-i", video, "-c", "copy", turned)
    except pytest.skip.Exception:  # ffmpeg before 6
        ffmpeg("-i", video, "-c", "copy", "-metadata:s:v:0", "rotate=90", turned)
    image = next(iter(open_source(turned))).image
    assert image.shape == (64, 40, 3)
    edges = image[:8].mean(), image[-8:].mean()  # the bright edge is no longer at the left
    assert max(edges) > 200 > min(edges)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(0)).save(tmp_path / "turned.jpg", exif=exif)
    assert next(iter(open_source(tmp_path / "turned.jpg"))).image.shape == (*SIZE, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.full((5, 7), 100, np.uint8), np.full((5, 7, 1), 100, np.uint8), np.full((5, 7, 2), 100, np.uint8),
        np.full((5, 7, 4), 100, np.uint8), np.full((5, 7), 25700, np.uint16), np.full((5, 7, 3), 25700, np.uint16),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)  # fmt: skip
def test_grey_alpha_and_16_bits(array):
    (frame,) = open_source([array])
    np.testing.assert_array_equal(frame.image, np.full((5, 7, 3), 100, np.uint8))


def test_a_generator_may_use_one_buffer(tmp_path):
    buffer = np.zeros((*SIZE, 3), np.uint8)

    def fill():
        for t in range(4):
            buffer[:] = picture(t)
            yield buffer

    found = list(open_source(fill()).neighbours(previous=True))
    assert [level(frame.image) for frame, _, _ in found] == [0, 1, 2, 3]
    assert [level(following) for _, following, _ in found[:-1]] == [1, 2, 3]
    assert [level(previous) for _, _, previous in found[1:]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("pixels", "encoder"), [("gray", "ffv1"), ("gray16le", "ffv1"), ("yuv420p10le", "ffv1"), ("rgba", "png")]
)
def test_grey_alpha_and_deep_video(tmp_path, pixels, encoder):
    frames = write_frames(tmp_path / "frames") / "%05d.png"
    ffmpeg("-framerate", 10, "-i", frames, "-pix_fmt", pixels, "-c:v", encoder, tmp_path / "clip.mkv")
    images = [frame.image for frame in open_source(tmp_path / "clip.mkv")]
    assert [level(image) for image in images] == list(range(6))
    assert {(image.shape, str(image.dtype)) for image in images} == {((*SIZE, 3), "uint8")}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((40, 64, 3), np.float32), "frame 2: expected a picture of type uint8 .* got float32"),
        (np.zeros((40, 64, 5), np.uint8), r"frame 2: expected a picture of shape .* got \(40, 64, 5\)"),
        (np.zeros((40, 0, 3), np.uint8), r"frame 2: expected a picture of shape"),
        (np.zeros((30, 64, 3), np.uint8), "frame 2 is 64 x 30, but the video began with 64 x 40"),
    ],
)
def test_a_bad_array_names_its_number(bad, message):
    with pytest.raises(ValueError, match=message):
        list(open_source([picture(0), picture(1), bad, picture(3)]))


def test_a_bad_file_is_named(tmp_path):
    folder = write_frames(tmp_path / "clip")
    (folder / "00003.png").write_bytes((folder / "00003.png").read_bytes()[:60])
    with pytest.raises(BadFileError, match=r"clip/00003\.png: damaged image"):
        list(open_source(folder))
    Image.fromarray(picture(3, (20, 20))).save(folder / "00003.png")
    with pytest.raises(ValueError, match="clip: frame 3 is 20 x 20, but the video began with 64 x 40"):
        list(open_source(folder))


def test_a_damaged_frame_in_the_middle_of_a_video_and_a_video_cut_off(tmp_path, caplog):
    path = write_video(tmp_path / "clip.avi", 30, size=(120, 160))
    content = path.read_bytes()
    at = content.index(b"\xff\xd8", len(content) // 2)  # where a JPEG begins
    good = content[:at].count(b"\xff\xd8")
    path.write_bytes(content[:at] + bytes(400) + content[at + 400 :])
    frames = iter(open_source(path))
    with pytest.raises(
        BadFileError, match=rf"clip\.avi: frame {good} cannot be decoded, though later ones can"
    ):
        assert len([next(frames) for _ in range(good)]) == good or next(frames)
        next(frames)
    (tmp_path / "cut.avi").write_bytes(content[:at])
    assert len(list(open_source(tmp_path / "cut.avi"))) == good
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'cut.avi'} ends after {good} of the 30 frames that it states; it may be cut off"
    ]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: path / "nowhere", FileNotFoundError, "input not found: .*nowhere"),
        (lambda path: path, FileNotFoundError, "no frames in .*expected images"),
        (lambda path: write_text(path / "a.mp4"), BadFileError, r"a\.mp4: not a video"),
        (lambda path: write_text(path / "a.zip"), BadFileError, r"a\.zip: not a readable zip"),
        (lambda _: picture(0), ValueError, "is one frame; give a list of them"),
        (lambda _: [], ValueError, "frames: there is no frame"),
        (lambda _: "camera:one", ValueError, "called by its number"),
        (lambda _: "camera:700", ValueError, "called by its number"),
    ],
)
def test_what_cannot_be_opened(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        list(open_source(make(tmp_path)))


def write_text(path):
    path.write_text("no pictures")
    return path


def test_settings_that_make_no_sense(tmp_path):
    clip = [picture(t) for t in range(3)]
    for settings, message in [
        ({"every": 0}, "every must be 1 or more"),
        ({"fps": 0.0}, "fps must be positive"),
        ({"start": 5}, r"there is no frame from 5 to the end \(it has 3\)"),
        ({"start": 2, "end": 1}, "there is no frame from 2 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(open_source(clip, **settings))
    with pytest.raises(ValueError, match="is open already"):
        open_source(open_source(clip), every=2)
    with pytest.raises(ValueError, match="a frame rate of its own"):
        open_source(write_video(tmp_path / "clip.avi"), fps=3.0)
    shutil.copy(write_frames(tmp_path / "twins") / "00001.png", tmp_path / "twins" / "00001.jpg")
    with pytest.raises(ValueError, match="two images are called 00001"):
        open_source(tmp_path / "twins")


class Camera:
    """Stands in for `cv2.VideoCapture`: three pictures, then the plug is pulled."""

    opened = True

    def __init__(self, number):
        self.number, self.left, self.released = number, 3, False
        Camera.last = self

    def isOpened(self):
        return self.opened

    def get(self, _):
        return 30.0

    def read(self):
        self.left -= 1
        return self.left >= 0, picture(max(0, self.left))[..., ::-1]

    def release(self):
        self.released = True


def test_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    source = open_source("camera:2", end=2)
    assert (source.name, source.fps, source.length, source.stems) == ("camera2", 30.0, None, None)
    frames = list(source)
    assert [frame.index for frame in frames] == [0, 1]
    assert 0 <= frames[0].time <= frames[1].time
    assert Camera.last.number == 2 and Camera.last.released
    with pytest.raises(OSError, match="camera:0 gives no picture after frame 3"):
        list(open_source("camera:0"))
    monkeypatch.setattr(Camera, "opened", False)
    with pytest.raises(OSError, match="camera:1 cannot be opened"):
        open_source("camera:1")
