import os
import shutil
import socket
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmhi.errors import BadFileError
from hmhi.media.av_out import hdr_transfer
from hmhi.media.packs import IMAGE_SUFFIXES, list_files
from hmhi.media.pictures import read_rgb, read_size
from hmhi.media.video_in import VideoFile, count_frames

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def test_video_pack_reads_exact_frames_in_any_order(video):
    assert count_frames(video) == 8
    frames = list_files(video, IMAGE_SUFFIXES)
    assert [f.stem for f in frames] == [f"{t:05d}" for t in range(8)]
    for t in (0, 1, 1, 5, 2, 7, 7, 0):
        rgb = read_rgb(frames[t])
        assert rgb.shape == (40, 64, 3)
        assert abs(float(rgb[..., 0].mean()) - 25 * t) < 5 and rgb[..., 2].mean() > 150
    assert read_size(frames[0]) == (40, 64)


def test_video_faults(tmp_path, video):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(BadFileError, match="not a video file"):
        count_frames(tmp_path / "text.mp4")
    with pytest.raises(BadFileError, match="frame 99 cannot be read; 8 frames can"):
        read_rgb(video / "00099.frame")


@pytest.mark.parametrize(
    "content",
    [
        b"ffconcat version 1.0\nfile bear.avi\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
        b"v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    ],
    ids=["concat", "hls", "sdp", "dash"],
)
def test_playlists_are_no_videos(tmp_path, video, content):
    (tmp_path / "list.mp4").write_bytes(content)
    with pytest.raises(BadFileError, match="not a video file"):
        count_frames(tmp_path / "list.mp4")


def test_a_name_never_becomes_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        name = Path(f"http:127.0.0.1:{server.getsockname()[1]}.mp4")
        name.write_bytes(bytes(4) + b"ftypisom" + bytes(600))
        with pytest.raises(BadFileError, match="not a video that OpenCV can read"):
            count_frames(name)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_name_that_is_no_utf8(tmp_path, video):
    path = video.rename(tmp_path / os.fsdecode(b"caf\xe9.avi"))
    with pytest.raises(BadFileError, match=r"caf\\udce9\.avi: the name is no UTF-8; rename the file"):
        count_frames(path)


def test_a_video_of_too_many_pixels(tmp_path):
    path = tmp_path / "large.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (12000, 8000))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    writer.write(np.zeros((8000, 12000, 3), np.uint8))
    writer.release()
    with pytest.raises(BadFileError, match="12000x8000 pixels is too large to decode"):
        count_frames(path)


def test_a_video_that_is_replaced_is_read_anew(tmp_path, video):
    assert read_rgb(video / "00007.frame").mean() > 100
    writer = cv2.VideoWriter(str(tmp_path / "new.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 40))
    for _ in range(8):
        writer.write(np.zeros((40, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "new.avi").replace(video)
    assert read_rgb(video / "00007.frame").mean() < 5


@needs_ffmpeg
@pytest.mark.parametrize(
    "suffix", ["mp4", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mpg", "flv", "wmv", "h264", "gif"]
)
def test_usual_containers_are_read(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    codec = ["-c:v", "libvpx"] if suffix == "webm" else []
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-frames:v", "5"]
    made = subprocess.run(["ffmpeg", "-loglevel", "error", *source, *codec, str(path)], capture_output=True)
    if made.returncode:
        pytest.skip(f"this ffmpeg writes no {suffix}")
    assert count_frames(path) >= 4


@needs_ffmpeg
def test_a_varying_rate_is_no_broken_file(tmp_path, caplog):
    """30 frames in 16 seconds, whose container counts 492; one that is cut off is still said to be."""
    times = "setpts=if(lt(N\\,20)\\,N*0.02\\,0.4+(N-20)*1.0)/TB"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=30", "-frames:v", "30", "-vf", times]
    path = tmp_path / "slow.mkv"
    command = ["ffmpeg", "-loglevel", "error", *source, "-fps_mode", "vfr", "-c:v", "mpeg4", str(path)]
    subprocess.run(command, check=True)
    with VideoFile(path) as video:
        assert (video.stated_frames or 0) > 100
    assert count_frames(path) == 30
    assert not caplog.messages
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert count_frames(path) < 30
    assert "it may be cut off" in caplog.text


@needs_ffmpeg
@pytest.mark.parametrize(("tag", "hdr"), [("smpte2084", "pq"), ("arib-std-b67", "hlg"), ("bt709", None)])
def test_ten_bits_are_read_and_hdr_is_known(tmp_path, tag, hdr):
    pytest.importorskip("av")
    path = tmp_path / "deep.mkv"
    source = [
        "-f",
        "lavfi",
        "-i",
        "color=gray:size=64x48:rate=12",
        "-frames:v",
        "2",
        "-pix_fmt",
        "yuv422p10le",
    ]
    command = ["ffmpeg", "-loglevel", "error", *source, "-c:v", "ffv1", "-color_trc", tag, str(path)]
    subprocess.run(command, check=True)
    with VideoFile(path) as video:
        assert video.advance()
        picture = video.picture()
    assert picture.std() < 1 and (hdr is not None or abs(picture.mean() - 128) < 1)
    assert hdr_transfer(path) == hdr
