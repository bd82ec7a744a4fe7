import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hmhi.media import video_out
from hmhi.media.video_in import VideoFile, count_frames
from hmhi.media.video_out import VideoWriter, add_sound

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg is not installed"
)


def write(path, count=6, fps=12.0, size=(33, 47)):
    writer = VideoWriter(path, fps, size)
    for t in range(count):
        writer.write(np.full((*size, 3), 40 * t % 256, dtype=np.uint8))
    writer.close()
    writer.close()  # does no harm
    return path


def make_video_with_sound(path: Path, seconds: float, *options: str) -> Path:
    subprocess.run(
        [
            "ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=12", "-f", "lavfi",
            "-i", "sine=frequency=440", "-t", str(seconds), "-pix_fmt", "yuv420p", *options, str(path),
        ],
        check=True,
    )  # fmt: skip
    return path


def probe(path):
    done = subprocess.run(
        ["ffprobe", "-loglevel", "error", "-show_streams", "-of", "json", str(path)],
        capture_output=True, check=True,
    )  # fmt: skip
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


def loudness(path, start, seconds):
    """Root mean square of a stretch of the sound."""
    done = subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-i", str(path), "-vn", "-ac", "1", "-ar", "8000", "-f", "s16le", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    samples = np.frombuffer(done.stdout, dtype=np.int16)[int(start * 8000) : int((start + seconds) * 8000)]
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


def without_ffmpeg(monkeypatch):
    monkeypatch.setattr(video_out, "ffmpeg", lambda: None)
    monkeypatch.setattr(video_out, "_has_h264", lambda: False)


@needs_ffmpeg
def test_what_browsers_play(tmp_path):
    (video,) = probe(write(tmp_path / "a.mp4")).values()
    assert (video["codec_name"], video["pix_fmt"], video["avg_frame_rate"]) == ("h264", "yuv420p", "12/1")
    assert (video["width"], video["height"], video["nb_frames"]) == (48, 34, "6")


COLOURS = np.array([(r, g, b) for r in (0, 128, 255) for g in (0, 128, 255) for b in (0, 128, 255)], np.uint8)


def worst_colour(picture):
    """Largest error of any channel in the middle of the patches that `write_patches` draws."""
    wide = picture.shape[1] // len(COLOURS)
    middle = picture[picture.shape[0] // 2, wide // 2 :: wide]
    return int(np.abs(middle.astype(int) - COLOURS).max())


def write_patches(path, height):
    width = height * 16 // 9 // len(COLOURS) // 2 * 2 * len(COLOURS)
    picture = np.repeat(np.repeat(COLOURS[None], width // len(COLOURS), axis=1), height, axis=0)
    writer = VideoWriter(path, 10, (height, width))
    for _ in range(3):
        writer.write(picture)
    writer.close()
    assert worst_colour(picture) == 0
    return path


@pytest.mark.parametrize("height", [240, 720])
def test_colours_come_back(tmp_path, height):
    """Tolerance: 4 levels by ffmpeg, 6 by OpenCV's writer."""
    with VideoFile(write_patches(tmp_path / "a.mp4", height)) as video:
        assert video.advance() and worst_colour(video.picture()) <= (4 if shutil.which("ffmpeg") else 6)


@needs_ffmpeg
def test_pixels_keep_their_aspect(tmp_path):
    source = make_video_with_sound(tmp_path / "source.mkv", 0.5, "-vf", "setsar=4/3")
    with VideoFile(source) as video:
        writer = VideoWriter(tmp_path / "out.mp4", 12.0, (48, 64), video.pixel_aspect)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    add_sound(tmp_path / "out.mp4", source, 0, 0.1)
    assert probe(tmp_path / "out.mp4")["video"]["sample_aspect_ratio"] == "4:3"


@needs_ffmpeg
def test_colours_are_those_of_bt709_and_say_so(tmp_path):
    path = write_patches(tmp_path / "a.mp4", 720)
    (video,) = probe(path).values()
    keys = ("color_space", "color_primaries", "color_transfer", "color_range")
    assert [video[key] for key in keys] == ["bt709", "bt709", "bt709", "tv"]
    # a player that ignores the tags and takes HD for BT.709, as players do
    done = subprocess.run(
        [
            "ffmpeg", "-loglevel", "error", "-i", str(path), "-vf", "scale=in_color_matrix=bt709:in_range=tv",
            "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
        ],
        capture_output=True, check=True,
    )  # fmt: skip
    shown = np.frombuffer(done.stdout, np.uint8).reshape(video["height"], video["width"], 3)
    assert worst_colour(shown) <= 4


def test_without_ffmpeg(tmp_path, monkeypatch):
    without_ffmpeg(monkeypatch)
    assert count_frames(write(tmp_path / "a.mp4")) == 6
    # A full disk, of which OpenCV's writer says nothing.
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from hmhi.media import video_out\n"
        "video_out._has_h264 = lambda: False\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "writer = video_out.VideoWriter(Path(sys.argv[1]), 10, (90, 160))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (40, 90, 160, 3), np.uint8)\n"
        "[writer.write(picture) for picture in noise]\n"
        "try: writer.close()\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.mp4")], capture_output=True, text=True
    )
    assert "b.mp4: 0 of 40 frames were written; is the disk full?" in done.stdout, done.stderr


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_sound_is_kept_from_where_the_video_begins(tmp_path, suffix):
    # silent for a second, then a tone
    source = make_video_with_sound(
        tmp_path / f"a source: 'so'.{suffix}", 2, "-af", "volume=enable='lt(t,1)':volume=0"
    )
    early, late = (write(tmp_path / f"{name}.mp4") for name in ("early", "late"))
    add_sound(early, source, 0.0, 0.5)
    add_sound(late, source, 1.25, 0.5)
    for path in (early, late):
        streams = probe(path)
        assert streams["audio"]["codec_name"] == "aac"
        assert float(streams["audio"]["duration"]) == pytest.approx(0.5, abs=0.1)
        assert streams["video"]["nb_frames"] == "6"
    assert loudness(early, 0.1, 0.3) < 50 < 1000 < loudness(late, 0.1, 0.3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, "early.mp4", "late.mp4"]


@needs_ffmpeg
def test_sound_that_ends_early_does_not_cut_the_video(tmp_path):
    path = write(tmp_path / "a.mp4", count=24)
    add_sound(path, make_video_with_sound(tmp_path / "short.mp4", 0.5), 0.0, 2.0)
    streams = probe(path)
    assert streams["video"]["nb_frames"] == "24"
    assert float(streams["audio"]["duration"]) < 0.7


@needs_ffmpeg
def test_a_source_without_sound(tmp_path):
    path = write(tmp_path / "a.mp4")
    add_sound(path, write(tmp_path / "silent.mp4"), 0.0, 0.5)
    assert list(probe(path)) == ["video"]


@needs_ffmpeg
def test_sound_that_cannot_be_read_costs_no_video(tmp_path, caplog):
    path = write(tmp_path / "a.mp4")
    (tmp_path / "junk.mp4").write_bytes(b"junk")
    add_sound(path, tmp_path / "junk.mp4", 0.0, 0.5)
    assert "sound cannot be kept" in caplog.text
    assert count_frames(path) == 6
    assert len(list(tmp_path.iterdir())) == 2


@needs_ffmpeg
def test_a_video_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/a\.mp4"):
        write(tmp_path / "nowhere" / "a.mp4", count=100, size=(480, 640))
