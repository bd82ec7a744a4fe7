import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from results_of import result_of, result_of_objects

from hmhi.errors import UserError
from hmhi.inference.inputs import find_videos
from hmhi.inference.kinds import Coco, Masks, Strip
from hmhi.inference.outputs import KINDS, OutputSettings, ResultWriter
from hmhi.inference.sources import open_source
from hmhi.media.masks import PALETTE, read_labels, read_mask
from hmhi.media.video_in import count_frames

# attention needs a network, the others an extra or an option
OWN_KINDS = tuple(
    kind for kind in KINDS if kind != "attention" and not kind.startswith(("alpha", "composite"))
)


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "clip").mkdir()
    for t in range(3):
        Image.new("RGB", (31, 20), (40 * t, 0, 0)).save(tmp_path / "clip" / f"{7 + t:05d}.jpg")
    (video,) = find_videos(tmp_path / "clip")
    return video, video.open(start=None, end=None, every=1, fps=24.0)


def results(source):
    for frame in source:
        prob = np.zeros(frame.image.shape[:2], dtype=np.float32)
        prob[5:15, 5:15] = 0.9
        seconds = {"decode": 0.25, "flow": 0.5, "network": 1.0}
        cut = frame.index == 1
        yield result_of(frame.image, prob, frame.index, time=frame.time, scene_cut=cut, seconds=seconds)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_results_take_their_names_together(tmp_path, opened):
    out = tmp_path / "out"
    writer = ResultWriter(OutputSettings(out, OWN_KINDS), *opened)
    with writer:
        for result in results(opened[1]):
            writer.write(result)
            assert not writer.done
            assert [path.name for path in out.iterdir()] == [".partial"]
    assert writer.done
    stems = ["00007", "00008", "00009"]
    assert files(out) == [
        "coco/clip.json",
        *(f"{kind}/clip/{stem}.png" for kind in ("masks", "matte") for stem in stems),
        "overlay/clip.mp4",
        *(f"prob/clip/{stem}.png" for stem in stems),
        "sequences/clip.json",
        "strip/clip.png",
    ]
    mask = Image.open(out / "masks" / "clip" / "00007.png")
    assert mask.mode == "P"
    assert set(np.unique(np.array(mask))) == {0, 1}
    assert read_mask(out / "masks" / "clip" / "00007.png").sum() == 100
    assert np.array(Image.open(out / "prob" / "clip" / "00007.png")).max() == int(0.9 * 255)
    matte = np.array(Image.open(out / "matte" / "clip" / "00009.png"))
    assert matte.shape == (20, 31, 4)
    assert (matte[10, 10, 3], matte[0, 0, 3]) == (255, 0)
    assert (matte[0, 0] == 0).all() and matte[10, 10, 0] > 60
    assert count_frames(out / "overlay" / "clip.mp4") == 3
    assert Image.open(out / "strip" / "clip.png").height == 240
    assert json.loads((out / "coco" / "clip.json").read_text())["annotations"][0]["areas"] == [100] * 3


def test_the_record_of_a_video(tmp_path, opened):
    writer = ResultWriter(OutputSettings(tmp_path / "out"), *opened)
    assert writer.earlier_source() is None
    with writer:
        for result in results(opened[1]):
            writer.write(result)
    record = json.loads((tmp_path / "out" / "sequences" / "clip.json").read_text())
    assert record["seconds"].pop("total") >= 0
    assert record == {
        "name": "clip", "source": str(tmp_path / "clip"), "fps": 24.0, "size": [20, 31], "frames": 3,
        "scene_cuts": [1], "hdr": None, "seconds": {"decode": 0.75, "flow": 1.5, "network": 3.0},
    }  # fmt: skip
    assert writer.earlier_source() == str(tmp_path / "clip")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path, opened, error):
    writer = ResultWriter(OutputSettings(tmp_path / "out", OWN_KINDS), *opened)
    with pytest.raises(error), writer:
        writer.write(next(results(opened[1])))
        raise error("the network is on fire")
    assert not writer.done
    assert files(tmp_path / "out") == []


def test_a_result_that_cannot_be_opened_leaves_nothing(tmp_path, opened, monkeypatch):
    """Once, those opened before it stayed open, and the folder in which they grow stayed too."""
    closed = []
    monkeypatch.setattr(Masks, "close", lambda self, complete: closed.append(complete))
    monkeypatch.setattr(Strip, "__init__", raiser(OSError(28, "No space left on device")))
    writer = ResultWriter(OutputSettings(tmp_path / "out", ("masks", "strip", "coco")), *opened)
    with pytest.raises(OSError, match="No space left"), writer:
        pass
    assert closed == [False]
    assert not any((tmp_path / "out" / ".partial").iterdir())


def test_a_result_that_cannot_be_closed_leaves_nothing(tmp_path, opened, monkeypatch):
    """Once, those behind it stayed open: an encoder went on running."""
    closed = []
    for kind in (Masks, Coco):
        monkeypatch.setattr(kind, "close", lambda self, complete: closed.append(complete))
    monkeypatch.setattr(Strip, "close", raiser(OSError(28, "No space left on device")))
    writer = ResultWriter(OutputSettings(tmp_path / "out", ("masks", "strip", "coco")), *opened)
    with pytest.raises(OSError, match="No space left"), writer:
        writer.write(next(results(opened[1])))
    assert closed == [True, False]
    assert files(tmp_path / "out") == []
    with pytest.raises(KeyboardInterrupt), writer:  # what ended the block is not hidden
        raise KeyboardInterrupt


def raiser(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


def test_objects_with_ids(tmp_path, opened):
    """A colour, a folder and an annotation for each id; object 7 comes later."""
    first = np.zeros((20, 31), np.uint8)
    first[2:8, 2:10] = 3
    second = first.copy()
    second[10:18, 12:30] = 7
    frame = np.full((20, 31, 3), 200, np.uint8)
    kinds = ("masks", "prob", "matte", "strip", "coco", "overlay")
    with ResultWriter(OutputSettings(tmp_path, kinds, by_id=True), *opened) as writer:
        writer.write(result_of_objects(frame, first, [3], 0))
        writer.write(result_of_objects(frame, second, [3, 7], 1))
        writer.write(result_of_objects(frame, first, [3, 7], 2))
    for stem, labels in (("00007", first), ("00008", second), ("00009", first)):
        np.testing.assert_array_equal(read_labels(tmp_path / "masks" / "clip" / f"{stem}.png"), labels)
    for kind in ("prob", "matte"):
        assert files(tmp_path / kind / "clip") == [
            "3/00007.png", "3/00008.png", "3/00009.png", "7/00008.png", "7/00009.png",
        ]  # fmt: skip
    seven = np.array(Image.open(tmp_path / "prob" / "clip" / "7" / "00008.png"))
    np.testing.assert_array_equal(seven > 0, second == 7)
    three, seven = json.loads((tmp_path / "coco" / "clip.json").read_text())["annotations"]
    assert (three["id"], three["areas"], three["bboxes"][0]) == (3, [48, 48, 48], [2, 2, 8, 6])
    assert (seven["id"], seven["areas"], seven["bboxes"][1]) == (7, [None, 144, None], [12, 10, 18, 8])
    strip = np.array(Image.open(tmp_path / "strip" / "clip.png")).astype(int)
    assert strip.shape[0] == 240
    panel = strip[:, strip.shape[1] // 3 : 2 * strip.shape[1] // 3]
    for place, colour in (((4, 5), PALETTE[9:12]), ((14, 20), PALETTE[21:24])):
        tint = panel[12 * place[0], panel.shape[1] * place[1] // 31]
        assert np.abs(tint - (100 + np.array(colour) // 2)).max() <= 2


def test_leftovers_of_a_killed_run_are_swept(tmp_path, opened):
    settings = OutputSettings(tmp_path / "out")
    writer = ResultWriter(settings, *opened)
    writer.__enter__()
    writer.write(next(results(opened[1])))  # and the process dies here
    again = ResultWriter(settings, *opened)
    assert not again.done
    with again:
        for result in list(results(opened[1]))[1:]:
            again.write(result)
    assert files(tmp_path / "out") == ["masks/clip/00008.png", "masks/clip/00009.png", "sequences/clip.json"]


def test_a_further_kind_of_result_is_not_there_yet(tmp_path, opened):
    with ResultWriter(OutputSettings(tmp_path / "out"), *opened) as writer:
        for result in results(opened[1]):
            writer.write(result)
    further = ResultWriter(OutputSettings(tmp_path / "out", ("masks", "coco")), *opened)
    assert writer.done and not further.done
    further.remove()
    assert not writer.done and files(tmp_path / "out") == []


def test_a_strip_of_a_long_video(tmp_path):
    frames = [np.full((24, 32, 3), t // 4, dtype=np.uint8) for t in range(1000)]
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (32, 24)).save(tmp_path / "clip" / "0.png")
    (video,) = find_videos(tmp_path / "clip")
    blank = np.zeros((24, 32), dtype=np.float32)
    with ResultWriter(OutputSettings(tmp_path / "out", ("strip",)), video, open_source(frames)) as writer:
        for index, frame in enumerate(frames):
            writer.write(result_of(frame, blank, index))
    strip = np.array(Image.open(tmp_path / "out" / "strip" / "clip.png"))
    assert strip.shape == (240, 5 * 320, 3)
    shown = strip[120, 160::320, 0].astype(int)
    assert shown[0] == 0 and shown[-1] > 200
    assert (np.diff(shown) > 40).all() and (np.diff(shown) < 85).all()


def write_all(folder, opened):
    with ResultWriter(OutputSettings(folder), *opened) as writer:
        for result in results(opened[1]):
            writer.write(result)


def test_a_link_in_the_output_is_not_followed(tmp_path, opened):
    """Once, `.partial/clip` was removed and written wherever a link led."""
    elsewhere = tmp_path / "elsewhere" / "clip"
    elsewhere.mkdir(parents=True)
    (elsewhere / "precious.txt").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".partial").symlink_to(elsewhere.parent)
    with pytest.raises(UserError, match="is a link"):
        write_all(out, opened)
    (out / ".partial").unlink()
    (out / "masks").mkdir()
    (out / "masks" / "clip").symlink_to(elsewhere)
    write_all(out, opened)
    assert not (out / "masks" / "clip").is_symlink()
    assert [path.name for path in elsewhere.iterdir()] == ["precious.txt"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs a second disk")
def test_masks_may_be_linked_to_another_disk(tmp_path, opened):
    """Once, renaming failed there, after all the work."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        assert os.stat(other).st_dev != os.stat(tmp_path).st_dev
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "masks").symlink_to(other)
        for _ in range(2):  # the second time over the first
            write_all(tmp_path / "out", opened)
            assert sorted(os.listdir(other)) == ["clip"]
            assert len(os.listdir(Path(other) / "clip")) == 3
