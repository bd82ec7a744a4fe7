"""Files are read back with PyAV's own decoders, and with OpenCV."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmhi.media.av_out import AvWriter

av = pytest.importorskip("av", reason="PyAV (extra video) is not installed")


def picture(shift=0, size=(46, 64)):
    """Colours that differ between BT.601 and BT.709, and a soft round edge: (H, W, 4) uint8."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    distance = np.hypot(rows - size[0] / 2, columns - size[1] / 2 - shift)
    alpha = np.clip((18 - distance) / 8 + 0.5, 0, 1) * 255
    patches = np.array([[230, 20, 30], [20, 200, 40], [30, 40, 220], [200, 200, 20]], dtype=np.uint8)
    colours = patches[np.broadcast_to(columns * 4 // size[1], size)]
    return np.dstack([colours, np.rint(alpha).astype(np.uint8)])


def write(path, pictures, fps=12.5, **kwargs):
    writer = AvWriter(path, fps, pictures[0].shape[:2], **kwargs)
    for one in pictures:
        writer.write(one)
    writer.close()
    writer.close()  # does no harm
    return path


def read(path):
    """RGBA pictures; VP9's alpha lies in a second stream that only libvpx reads."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        decoder = av.CodecContext.create("libvpx-vp9", "r") if path.suffix == ".webm" else context
        frames = [frame for packet in container.demux(stream) for frame in decoder.decode(packet)]
        return [
            frame.reformat(
                format="rgba", src_colorspace=1, dst_colorspace=1, src_color_range=1, dst_color_range=2
            ).to_ndarray()
            for frame in frames
        ]


@pytest.mark.parametrize("suffix", [".mov", ".webm"])
@pytest.mark.parametrize("size", [(46, 64), (45, 63)])
def test_alpha_survives_the_round_trip(tmp_path, suffix, size):
    pictures = [picture(shift, size) for shift in range(5)]
    shown = read(write(tmp_path / f"alpha{suffix}", pictures))
    assert len(shown) == 5
    for one, wanted in zip(shown, pictures, strict=True):
        error = np.abs(one[: size[0], : size[1]].astype(int) - wanted)
        assert error[..., 3].mean() < 1
        assert error[20:26, 8:12, :3].mean() < 6, "flat colour"


def test_h264_is_bt709_and_says_so(tmp_path):
    wanted = picture()[..., :3]
    path = write(tmp_path / "overlay.mp4", [wanted] * 3)
    shown = read(path)[1][..., :3].astype(int)
    for column in (8, 24, 40, 56):
        assert np.abs(shown[20:26, column] - wanted[20:26, column]).max() < 8
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)


def make_source(path: Path, *options: str) -> Path:
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which makes the source, is not installed")
    subprocess.run(
        [
            "ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=12", "-f", "lavfi",
            "-i", "aevalsrc=if(gte(t\\,1)\\,sin(2764*t)\\,0):d=3", "-t", "3", *options, str(path),
        ],
        check=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_the_sound_is_that_of_the_same_stretch(tmp_path, suffix):
    source = make_source(tmp_path / "source.mkv")
    path = write(
        tmp_path / f"out{suffix}",
        [picture()[..., : 3 if suffix == ".mp4" else 4]] * 25,
        sound=source,
        start=0.5,
    )
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in frames])
    rate = frames[0].rate
    assert len(samples) / rate == pytest.approx(2.0, abs=0.1)
    loudness = [np.abs(samples[int(rate * t) : int(rate * (t + 0.3))]).mean() for t in (0.1, 0.65)]
    assert loudness[0] < 0.01 < 0.3 < loudness[1], "silence up to second 1 of the source, a tone from there"


def test_pixels_keep_their_aspect(tmp_path):
    source = make_source(tmp_path / "source.mkv", "-vf", "setsar=4/3")
    with av.open(str(write(tmp_path / "out.mp4", [picture()[..., :3]], sound=source))) as container:
        assert container.streams.video[0].sample_aspect_ratio == pytest.approx(4 / 3)


def test_a_source_that_is_no_video_costs_the_sound_alone(tmp_path, caplog):
    (tmp_path / "source.mp4").write_bytes(b"nothing")
    path = write(tmp_path / "out.mp4", [picture()[..., :3]] * 2, sound=tmp_path / "source.mp4")
    assert len(read(path)) == 2
    assert "the sound cannot be kept" in caplog.text
