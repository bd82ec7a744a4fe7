import pytest

from hmhi.errors import BadFileError
from hmhi.media.packs import IMAGE_SUFFIXES, list_files
from hmhi.media.pictures import read_rgb, read_size
from hmhi.media.video_in import count_frames


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
    with pytest.raises(BadFileError, match="not a video"):
        count_frames(tmp_path / "text.mp4")
    with pytest.raises(BadFileError, match="frame 99 cannot be read; 8 frames can"):
        read_rgb(video / "00099.frame")
