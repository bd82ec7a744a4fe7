import numpy as np
import pytest
from PIL import Image

from hmhi.data.media import count_frames, read_mask
from hmhi.engine.infer import FrameResult
from hmhi.engine.video_io import ResultWriter, find_videos, truth_folder


def write_frames(folder, count=3, size=(20, 31), suffix="jpg"):
    folder.mkdir(parents=True)
    for t in range(count):
        Image.fromarray(np.full((*size, 3), 40 * t, dtype=np.uint8)).save(folder / f"{t:05d}.{suffix}")
    return folder


def results(video):
    for index, frame in enumerate(video.read_frames()):
        prob = np.zeros(frame.shape[:2], dtype=np.float32)
        prob[5:15, 5:15] = 0.9
        yield FrameResult(index, frame, prob > 0.5, prob, frame)


def test_a_folder_of_frames_is_one_video(tmp_path):
    (video,) = find_videos(write_frames(tmp_path / "my clip"))
    assert video.name == "my clip"
    assert [path.stem for path in video.frames] == ["00000", "00001", "00002"]
    assert video.flows is None


def test_a_folder_of_folders_is_several(tmp_path):
    for name in ("b", "a", "c"):
        write_frames(tmp_path / "in" / name)
    (tmp_path / "in" / "empty").mkdir()
    assert [video.name for video in find_videos(tmp_path / "in")] == ["a", "b", "c"]
    assert [video.name for video in find_videos(tmp_path / "in", names=["c"])] == ["c"]
    with pytest.raises(ValueError, match=r"no such sequence .* d, e"):
        find_videos(tmp_path / "in", names=["d", "a", "e"])


def test_stored_flow_may_lack_the_last_frame_only(tmp_path):
    for name in ("a", "b"):
        write_frames(tmp_path / "in" / name, 3)
    write_frames(tmp_path / "flow" / "a", 2)
    write_frames(tmp_path / "flow" / "b", 3)
    first, second = find_videos(tmp_path / "in", tmp_path / "flow")
    assert [path.name for path in first.flows] == ["00000.jpg", "00001.jpg", "00001.jpg"]
    assert len(set(second.flows)) == 3
    (tmp_path / "flow" / "a" / "00000.jpg").unlink()
    (tmp_path / "flow" / "b" / "00001.jpg").unlink()
    with pytest.raises(ValueError, match=r"lacks flow maps .* a, b"):
        find_videos(tmp_path / "in", tmp_path / "flow")


@pytest.mark.parametrize("content", [None, "empty"])
def test_nothing_to_segment(tmp_path, content):
    if content == "empty":
        (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="in"):
        find_videos(tmp_path / "in")


def test_two_frames_of_one_name(tmp_path):
    folder = write_frames(tmp_path / "in")
    Image.new("RGB", (31, 20)).save(folder / "00001.png")
    with pytest.raises(ValueError, match="share one name"):
        find_videos(folder)


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


def test_results_take_their_names_together(tmp_path):
    (video,) = find_videos(write_frames(tmp_path / "clip"))
    writer = ResultWriter(tmp_path / "out", video, prob=True, overlay=True)
    with writer:
        for result in results(video):
            writer.write(result)
            assert not writer.done
            assert not (tmp_path / "out" / "masks" / "clip").exists()
    assert writer.done
    written = sorted(
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    stems = ["00000", "00001", "00002"]
    assert written == [
        *(f"masks/clip/{stem}.png" for stem in stems),
        "overlay/clip.mp4",
        *(f"prob/clip/{stem}.png" for stem in stems),
    ]
    mask = Image.open(tmp_path / "out" / "masks" / "clip" / "00000.png")
    assert mask.mode == "P"
    assert set(np.unique(np.array(mask))) == {0, 1}
    assert read_mask(tmp_path / "out" / "masks" / "clip" / "00000.png").sum() == 100
    assert np.array(Image.open(tmp_path / "out" / "prob" / "clip" / "00000.png")).max() == int(0.9 * 255)
    assert count_frames(tmp_path / "out" / "overlay" / "clip.mp4") == 3


def test_a_failure_leaves_nothing(tmp_path):
    (video,) = find_videos(write_frames(tmp_path / "clip"))
    writer = ResultWriter(tmp_path / "out", video, overlay=True)
    with pytest.raises(RuntimeError), writer:
        writer.write(next(results(video)))
        raise RuntimeError("the network is on fire")
    assert not writer.done
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    (video,) = find_videos(write_frames(tmp_path / "clip"))
    writer = ResultWriter(tmp_path / "out", video)
    writer.__enter__()
    writer.write(next(results(video)))  # and the process dies here
    again = ResultWriter(tmp_path / "out", video)
    assert not again.done
    with again:
        for result in list(results(video))[1:]:
            again.write(result)
    assert len(list((tmp_path / "out" / "masks" / "clip").iterdir())) == 2
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["clip"]
