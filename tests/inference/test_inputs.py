"""What --input may name."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hmhi.inference.inputs import find_inputs, find_videos, truth_folder


def write_frames(folder, count=3, suffix="jpg"):
    folder.mkdir(parents=True)
    for t in range(count):
        Image.new("RGB", (31, 20), (40 * t, 0, 0)).save(folder / f"{t:05d}.{suffix}")
    return folder


def write_video(path, count=3):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
    for t in range(count):
        writer.write(np.full((48, 64, 3), 60 * t, dtype=np.uint8))
    writer.release()
    return path


def names(source, **options):
    return [video.name for video in find_videos(source, **options)]


def test_a_folder_of_frames_is_one_video(tmp_path):
    (video,) = find_videos(write_frames(tmp_path / "my clip"))
    assert video.name == "my clip"
    assert [path.stem for path in video.frames] == ["00000", "00001", "00002"]
    assert video.flows is None and video.file is None and not video.live


def test_files_are_videos(tmp_path):
    (video,) = find_videos(write_video(tmp_path / "walk.mp4"))
    assert (video.name, video.file, len(video.frames)) == ("walk", tmp_path / "walk.mp4", 3)
    assert video.open(start=None, end=None, every=1, fps=24.0).fps == pytest.approx(12.0)
    frames = write_frames(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack:
        for path in frames.iterdir():
            pack.write(path, path.name)
    (video,) = find_videos(tmp_path / "pack.zip")
    assert video.file is None  # it has no sound
    source = video.open(start="1", end=None, every=1, fps=10.0)
    assert [(frame.index, frame.time) for frame in source] == [(1, 0.1), (2, 0.2)]
    assert names(frames / "00001.jpg") == ["00001"]


def test_names_lead_nowhere_else(tmp_path):
    """Results stand below a video's name: ``..mp4`` has the stem ``.``, and ``...mp4`` the stem ``..``."""
    video = write_video(tmp_path / "walk.mp4")
    for name, safe in {
        "..mp4": "_", "...mp4": "__", ".hidden.mp4": "_hidden", "-rf.mp4": "_rf", "red\x1b[31m.mp4": "red_[31m",
        "what*.mp4": "what_", "a=b.mp4": "a=b", "clip [1].mp4": "clip [1]",
    }.items():  # fmt: skip
        path = tmp_path / "odd" / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(video)
        assert names(path) == [safe]
        assert names(f"{tmp_path}/odd/{name[0]}*") == [safe]
        path.unlink()


def test_patterns_do_not_go_round_in_circles(tmp_path):
    for name in ("a", "b", "c"):
        write_frames(tmp_path / name / "frames", 1)
        for other in ("a", "b", "c", "."):
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    with pytest.raises(ValueError, match="two videos are called frames"):
        names(f"{tmp_path}/**/frames")


def test_a_folder_of_videos_is_several(tmp_path):
    for name in ("b", "a", "c"):
        write_frames(tmp_path / "in" / name)
    write_video(tmp_path / "in" / "walk.mp4")
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("not a video")
    write_frames(tmp_path / "in" / ".hidden")
    assert names(tmp_path / "in") == ["a", "b", "c", "walk"]
    assert names(tmp_path / "in", names=["walk", "c"]) == ["walk", "c"]
    with pytest.raises(ValueError, match=r"no such sequence .* d, e"):
        find_videos(tmp_path / "in", names=["d", "a", "e"])


def test_patterns(tmp_path):
    for name in ("dog", "dance", "cat"):
        write_frames(tmp_path / name)
    write_video(tmp_path / "day.mp4")
    (tmp_path / "diary.txt").write_text("not a video")
    assert names(f"{tmp_path}/d*") == ["dance", "day", "dog"]
    assert names(f"{tmp_path}/**/*.mp4") == ["day"]
    by_frame = find_videos(f"{tmp_path}/d*/0000[02].jpg")
    assert [(video.name, len(video.frames)) for video in by_frame] == [("dance", 2), ("dog", 2)]
    with pytest.raises(FileNotFoundError, match="nothing matches"):
        find_videos(f"{tmp_path}/x*")
    with pytest.raises(FileNotFoundError, match="no frames or videos"):
        find_videos(f"{tmp_path}/*.txt")
    odd = write_frames(tmp_path / "what[1]")  # a path first, a pattern only where there is none
    assert names(str(odd)) == ["what[1]"]


def test_a_camera_needs_no_path(tmp_path):
    (video,) = find_videos("camera:0")
    assert (video.name, video.live, video.file) == ("camera0", True, None)
    with pytest.raises(ValueError, match="camera:0 has no stored flow"):
        find_videos("camera:0", tmp_path)


def test_two_videos_of_one_name(tmp_path):
    write_frames(tmp_path / "walk")
    write_video(tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match=r"called walk: .*walk and .*walk\.mp4"):
        find_videos(tmp_path)


@pytest.mark.parametrize("content", [None, "empty"])
def test_nothing_to_segment(tmp_path, content):
    if content == "empty":
        (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="in"):
        find_videos(tmp_path / "in")


def test_stored_flow_may_lack_the_last_frame_only(tmp_path):
    for name in ("a", "b"):
        write_frames(tmp_path / "in" / name, 3)
    write_frames(tmp_path / "flow" / "a", 2)
    write_frames(tmp_path / "flow" / "b", 3)
    first, second = find_videos(tmp_path / "in", tmp_path / "flow")
    assert [path.name for path in first.flows] == ["00000.jpg", "00001.jpg", "00001.jpg"]
    assert len(set(second.flows)) == 3
    (one,) = find_videos(tmp_path / "in" / "a", tmp_path / "flow" / "a")
    assert one.flows == first.flows
    (tmp_path / "flow" / "a" / "00000.jpg").unlink()
    (tmp_path / "flow" / "b" / "00001.jpg").unlink()
    with pytest.raises(ValueError, match=r"lacks flow maps .* a, b"):
        find_videos(tmp_path / "in", tmp_path / "flow")


def test_a_damaged_pack_does_not_hide_the_flow_of_others(tmp_path):
    write_frames(tmp_path / "in" / "a")
    write_frames(tmp_path / "flow" / "a")
    (tmp_path / "in" / "b.zip").write_bytes(b"not a zip")
    good, damaged = find_videos(tmp_path / "in", tmp_path / "flow")
    assert len(good.flows) == 3
    with pytest.raises(ValueError, match=r"b\.zip"):
        damaged.open(start=None, end=None, every=1, fps=24.0)


@pytest.fixture
def data_root(tmp_path):
    for part in ("Images", "Flows", "Annotations"):
        for name in ("a", "b"):
            write_frames(tmp_path / "DAVIS-16" / part / "val" / name, 2, "jpg" if part == "Images" else "png")
    return tmp_path


def test_a_data_set_by_name(data_root):
    inputs = find_inputs("davis16", data_root=data_root)
    base = data_root / "DAVIS-16"
    assert [video.name for video in inputs.videos] == ["a", "b"]
    assert (inputs.dataset, inputs.truth) == ("davis16", base / "Annotations" / "val")
    assert inputs.flow == base / "Flows" / "val"
    assert inputs.videos[0].flows == tuple(base / "Flows" / "val" / "a" / f"0000{t}.png" for t in (0, 1))
    assert find_inputs("davis16", "stored", data_root=data_root) == inputs
    computed = find_inputs("davis16", "dis", ["b"], data_root)
    assert computed.flow is None and [video.flows for video in computed.videos] == [None]
    other = find_inputs("davis16", str(base / "Images" / "val"), data_root=data_root)
    assert other.flow == base / "Images" / "val"


def test_a_data_set_that_is_not_as_asked(data_root):
    (data_root / "DAVIS-16" / "Flows").rename(data_root / "elsewhere")
    assert find_inputs("davis16", data_root=data_root).flow is None
    with pytest.raises(FileNotFoundError, match="davis16 has no stored flow"):
        find_inputs("davis16", "stored", data_root=data_root)
    with pytest.raises(ValueError, match="data set's name"):
        find_inputs(str(data_root / "DAVIS-16" / "Images" / "val"), "stored")
    with pytest.raises(FileNotFoundError, match="FBMS"):
        find_inputs("fbms", data_root=data_root)
    with pytest.raises(ValueError, match="single images"):
        find_inputs("duts", data_root=data_root)


def test_davis_as_published(shared_data, tmp_path):
    (tmp_path / "DAVIS-16").symlink_to(shared_data / "davis16")
    inputs = find_inputs("davis16", data_root=tmp_path)
    assert len(inputs.videos) == 12
    assert all(len(video.flows) == len(video.frames) for video in inputs.videos)


@pytest.mark.parametrize(
    ("images", "truth"), [("JPEGImages", "Annotations"), ("Images", "Annotations"), ("frame", "mask")]
)
def test_truth_of_a_data_set(tmp_path, images, truth):
    # a folder of the same name higher up must not be taken for it
    root = tmp_path / images / "set"
    (root / images / "val").mkdir(parents=True)
    assert truth_folder(root / images / "val") is None
    (root / truth / "val").mkdir(parents=True)
    assert truth_folder(root / images / "val") == root / truth / "val"
    assert truth_folder(tmp_path) is None


def test_a_path_wins_over_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames(Path("davis16"))
    inputs = find_inputs("davis16")
    assert inputs.dataset is None and inputs.folders == [Path("davis16")]
