import numpy as np
import pytest
from trees import half_mask, picture, save, write_video

from hmhi.config import DataConfig
from hmhi.data.check import all_splits, check_split, find_shared_images, readiness
from hmhi.data.splits import DAVIS16_VAL
from hmhi.errors import UserError
from hmhi.flow.codec import flow_to_rgb


def write_clean(base, name, split="train", seed=0, frames=4, size=(40, 64)):
    """As write_video, but the flow maps are colour-wheel pictures and the images are unique."""
    write_video(base, name, frames, split=split, size=size)
    field = np.random.default_rng(seed).normal(size=(*size, 2)).astype(np.float32)
    for t in range(frames):
        save(base / f"Images/{split}/{name}/{t:05d}.jpg", picture(1000 * seed + t, size))
        if t < frames - 1:
            save(base / f"Flows/{split}/{name}/{t:05d}.png", flow_to_rgb(field))


def problems(report):
    return [finding.problem for finding in report.findings if not finding.note]


def test_a_clean_split_is_ready(tmp_path):
    write_clean(tmp_path / "DAVSOD", "select_0001", seed=1)
    write_clean(tmp_path / "DAVSOD", "select_0002", seed=2)
    report = check_split(tmp_path, "davsod", "train")
    assert report.findings == [] and report.state == "ready"
    assert (len(report.videos), report.frames, report.masks, report.flows) == (2, 8, 8, 8)
    assert dict(report.sizes) == {"64x40": 2} and dict(report.truth) == {"{0,255}": 6}


def test_the_flow_manifest_is_read(tmp_path):
    write_clean(tmp_path / "DAVSOD", "a")
    assert check_split(tmp_path, "davsod", "train").flow_made_by == "unknown"
    (tmp_path / "DAVSOD/Flows/train/manifest.json").write_text(
        '{"format": "hmhi-flow-1", "method": "raft", "direction": "backward"}'
    )
    report = check_split(tmp_path, "davsod", "train")
    assert report.flow_made_by == "raft backward" and report.state == "ready"


def test_absent(tmp_path):
    report = check_split(tmp_path, "davsod", "train")
    assert (
        report.absent
        and "docs/DATA.md" in problems(report)[0]
        and "prepare_data.py davsod" in report.findings[0].fix
    )


def test_missing_flow_leaves_the_rest_usable(tmp_path):
    write_video(tmp_path / "FBMS", "cats02", 4, flows=[])
    report = check_split(tmp_path, "fbms", "train")
    assert report.state == "no flow" and "make_flow.py" in report.findings[0].fix
    stored, dis = (DataConfig(train=["fbms"], val=["synthetic"], flow=flow) for flow in ("stored", "dis"))
    assert readiness(stored, [report]) == "fbms train: no flow"
    assert readiness(dis, [report]) == "ready"
    write_video(tmp_path / "FBMS", "cats04", 4, masks=[])
    report = check_split(tmp_path, "fbms", "train")
    assert report.state == "problems" and readiness(dis, [report]) == "fbms train: problems"


def test_the_size_of_youtube_objects_is_noted(tmp_path):
    write_clean(tmp_path / "Youtube-Objects", "cat0001_01", split="val", frames=2, size=(360, 480))
    report = check_split(tmp_path, "ytobj", "val")
    assert report.state == "ready"
    assert [f.problem.split(";")[0] for f in report.findings] == ["this copy is 480x360"]


def test_single_images_need_no_validation_part(tmp_path):
    save(tmp_path / "DUTS/Images/train/a.jpg", picture(0))
    save(tmp_path / "DUTS/Annotations/train/a.png", half_mask())
    train, val = (check_split(tmp_path, "duts", split) for split in ("train", "val"))
    assert train.state == "ready"
    assert val.absent and problems(val) == []


def break_mask_size(base):
    save(base / "Annotations/train/v/00000.png", half_mask((30, 40)))


def break_flow_turned(base):
    save(base / "Flows/train/v/00000.png", flow_to_rgb(np.ones((64, 40, 2), np.float32)))


def break_flow_is_image(base):
    save(base / "Flows/train/v/00000.png", np.array(picture(1, (40, 64))))
    save(base / "Images/train/v/00000.png", picture(1, (40, 64)))
    (base / "Images/train/v/00000.jpg").unlink()


def break_flow_grey(base):
    save(base / "Flows/train/v/00000.png", np.dstack([picture(1, (40, 64))[..., 0]] * 3))


def break_image(base):
    (base / "Images/train/v/00000.jpg").write_bytes(b"<html>")


def break_size(base):
    save(base / "Images/train/v/00000.jpg", picture(1, (20, 32)))
    save(base / "Annotations/train/v/00000.png", half_mask((20, 32)))


def break_stem(base):
    (base / "Flows/train/v/00000.png").rename(base / "Flows/train/v/frame_0.png")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (break_mask_size, "v/00000: mask is 40x30 but its image 64x40"),
        (break_flow_turned, "v/00000: flow is 40x64 but its image 64x40, turned on its side"),
        (break_flow_is_image, "v/00000: the flow map is the image itself"),
        (break_flow_grey, "v/00000: the flow map has no colour"),
        (break_image, "not an image"),
        (break_size, "v: images of 2 sizes: 32x20, 64x40"),
        (break_stem, "flow map frame_0 has no image"),
    ],
)
def test_traps(tmp_path, fault, message):
    base = tmp_path / "DAVSOD"
    write_clean(base, "v", seed=1)
    assert check_split(tmp_path, "davsod", "train").findings == []
    fault(base)
    report = check_split(tmp_path, "davsod", "train")
    assert any(message in problem for problem in problems(report)), problems(report)
    assert all(finding.fix for finding in report.findings)


def test_kinds_of_truth(tmp_path):
    ids = np.zeros((40, 64), np.uint8)
    ids[:10], ids[10:20] = 1, 2
    cases = {
        "{0,1}": (half_mask(value=1), False),
        "{0,255}": (half_mask(), False),
        "empty": (half_mask(value=0), False),
        "object ids": (ids, True),
        "greyed palette": (np.array([0, 38, 75], np.uint8)[ids], False),
        "soft grey": (np.arange(40 * 64).reshape(40, 64).astype(np.uint8), False),
        "colour": (picture(0), False),
    }
    for kind, (mask, palette) in cases.items():
        write_clean(tmp_path / "DAVSOD", "v", frames=2)
        for t in range(2):
            save(tmp_path / f"DAVSOD/Annotations/train/v/{t:05d}.png", mask, palette)
        report = check_split(tmp_path, "davsod", "train")
        assert dict(report.truth) == {kind: 2} and report.state == "ready"
        assert bool(report.findings) == (kind in ("greyed palette", "soft grey"))


def test_a_set_that_holds_another_one(tmp_path):
    for name in DAVIS16_VAL[:3]:
        write_clean(tmp_path / "FBMS", name, split="val")
    report = check_split(tmp_path, "fbms", "val")
    assert "these are the videos of davis16 val, not of fbms val" in problems(report)
    assert report.state == "problems"


def test_incomplete_and_foreign_videos_are_notes(tmp_path):
    write_clean(tmp_path / "DAVIS-16", "dog", split="val")
    write_clean(tmp_path / "DAVIS-16", "judo", split="val", seed=1)
    report = check_split(tmp_path, "davis16", "val")
    notes = [finding.problem for finding in report.findings]
    assert any("19 of 20 published videos are missing" in note for note in notes)
    assert any("1 videos are not in the published split: judo" in note for note in notes)
    assert report.state == "ready"


def test_images_shared_by_training_and_test_sets(tmp_path):
    write_clean(tmp_path / "DAVSOD", "a", seed=1)
    write_clean(tmp_path / "FBMS", "b", split="val", seed=2)
    reports = [check_split(tmp_path, "davsod", "train"), check_split(tmp_path, "fbms", "val")]
    assert find_shared_images(reports) == []
    for t in (1, 2):
        copy = (tmp_path / f"DAVSOD/Images/train/a/{t:05d}.jpg").read_bytes()
        (tmp_path / f"FBMS/Images/val/b/{t:05d}.jpg").write_bytes(copy)
    (finding,) = find_shared_images(reports)
    assert "davsod train a and fbms val b share 2 identical images" in finding.problem


def test_every_split_of_the_catalog():
    splits = all_splits()
    assert ("davis16", "train") in splits and ("ytobj", "train") not in splits
    assert all_splits(["visal"]) == [("visal", "val")]


def test_real_davis(shared_data):
    report = check_split(shared_data, "davis16", "val", decode=2)
    assert report.state == "ready" and dict(report.sizes) == {"854x480": 12}


def test_a_negative_number_of_frames(tmp_path):
    with pytest.raises(UserError, match="frames to decode must be 0 or more, got -1"):
        check_split(tmp_path, "davsod", "train", decode=-1)
