"""Each converter on a miniature of the published layout, odd cases included."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import half_mask, picture, save

from hmhi.data.index import scan
from hmhi.data.prepare import write
from hmhi.data.prepare.archive import unpack
from hmhi.data.prepare.recipe import SourceError
from hmhi.data.prepare.recipes import RECIPES
from hmhi.data.prepare.write import prepare
from hmhi.data.splits import DAVIS16_TRAIN, DAVIS16_VAL, FBMS_TEST, FBMS_TRAIN, PUBLISHED
from hmhi.errors import BadFileError
from hmhi.media.masks import read_mask, write_labels
from hmhi.media.pictures import read_rgb

SIZE = (12, 16)
HALF = half_mask(SIZE, 1)


def two_objects():
    ids = np.zeros(SIZE, np.uint8)
    ids[:, :4], ids[:, 4:8] = 1, 2
    return ids


def scanned(root, name, split):
    return {v.name: v for v in scan(root, name, split, need_flow=False, need_mask=True)}


def masks_of(video):
    return {frame.stem: read_mask(frame.mask) for frame in video.frames if frame.mask is not None}


def assert_stored(video, labels):
    """Masks are palette images that hold these ids, in the colours that everybody uses for them."""
    for frame in video.frames:
        if frame.mask is not None:
            with Image.open(frame.mask) as image:
                assert image.mode == "P"
                np.testing.assert_array_equal(np.array(image), labels)
                assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]


def davis(base: Path, mask, palette):
    for name in DAVIS16_TRAIN + DAVIS16_VAL:
        for t in range(2):
            save(base / f"DAVIS/JPEGImages/480p/{name}/{t:05d}.jpg", picture(t, SIZE))
            save(base / f"DAVIS/Annotations/480p/{name}/{t:05d}.png", mask, palette)
    return base / "DAVIS"


def test_published_splits():
    assert [len(PUBLISHED[key]) for key in PUBLISHED] == [30, 20, 29, 30]
    assert not set(DAVIS16_TRAIN) & set(DAVIS16_VAL) and not set(FBMS_TRAIN) & set(FBMS_TEST)
    assert all(len(set(names)) == len(names) for names in PUBLISHED.values())


@pytest.mark.parametrize(
    ("mask", "palette"), [(half_mask(SIZE), False), (two_objects(), True)], ids=["2016", "2017"]
)
def test_davis16_from_either_archive(tmp_path, mask, palette):
    source = davis(tmp_path / "source", mask, palette)
    save(source / "JPEGImages/480p/judo/00000.jpg", picture(0, SIZE))  # only in DAVIS-2017: left out
    shutil.make_archive(str(tmp_path / "DAVIS-trainval-480p"), "zip", tmp_path / "source", "DAVIS")
    manifest = prepare(RECIPES["davis16"], [tmp_path / "DAVIS-trainval-480p.zip"], tmp_path / "data")
    train, val = (scanned(tmp_path / "data", "davis16", split) for split in ("train", "val"))
    assert len(train) == 30 and len(val) == 20 and set(val) == set(DAVIS16_VAL)
    np.testing.assert_array_equal(masks_of(val["dog"])["00001"], HALF)
    assert_stored(val["dog"], mask if palette else HALF)
    assert manifest["splits"]["val"] == {
        "videos": 20,
        "frames": 40,
        "masks": 40,
        "bytes": manifest["splits"]["val"]["bytes"],
    }
    original = (source / "JPEGImages/480p/dog/00000.jpg").read_bytes()
    assert val["dog"].frames[0].image.read_bytes() == original
    assert not (tmp_path / "data/DAVIS-16/.work").exists()


def test_davis16_incomplete(tmp_path, caplog):
    caplog.set_level("INFO")
    source = davis(tmp_path / "source", half_mask(SIZE), False)
    shutil.rmtree(source / "JPEGImages/480p/dog")
    with pytest.raises(SourceError, match="1 of the 20 val videos are missing: dog; --splits"):
        prepare(RECIPES["davis16"], [source], tmp_path / "data")
    assert not (tmp_path / "data/DAVIS-16").exists()
    (source / "Annotations/480p/bear/00001.png").unlink()
    (source / "Annotations/480p/cows/00000.png").unlink()
    with pytest.raises(SourceError, match=r"train/bear: image 00001 has no mask .* \(and 1 more problems\)"):
        prepare(RECIPES["davis16"], [source], tmp_path / "data", part="both")
    save(source / "Annotations/480p/cows/00000.png", half_mask(SIZE))
    manifest = prepare(RECIPES["davis16"], [source], tmp_path / "data", part="val")
    assert {split: counts["videos"] for split, counts in manifest["splits"].items()} == {"val": 19}
    assert "left out: 30 train videos" in caplog.text
    assert "1 of the 20 val videos are missing: dog" in caplog.text
    for name in DAVIS16_TRAIN:
        shutil.rmtree(source / "JPEGImages/480p" / name)
    with pytest.raises(SourceError, match="found no train videos in"):
        prepare(RECIPES["davis16"], [source], tmp_path / "none", part="train")


def test_a_source_that_holds_one_part_only(tmp_path, caplog):
    source = davis(tmp_path / "source", half_mask(SIZE), False)
    for name in DAVIS16_TRAIN:
        shutil.rmtree(source / "JPEGImages/480p" / name)
    assert list(prepare(RECIPES["davis16"], [source], tmp_path / "data")["splits"]) == ["val"]
    assert "30 of the 30 train videos are missing" in caplog.text


def test_what_a_user_has_of_davis16(shared_data, tmp_path, repository):
    """The command on real sequences, one of either split."""
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "source" / kind / "480p").mkdir(parents=True)
        for name in ("bear", "cows"):
            real = shared_data / "davis16" / kind / "480p" / name
            (tmp_path / "source" / kind / "480p" / name).symlink_to(real)
    command = [sys.executable, repository / "tools/prepare_data.py", "davis16", "--link", "--splits", "val"]
    source = ["--source", tmp_path / "source", "--root", tmp_path / "data"]
    done = subprocess.run([*map(str, command + source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "left out: 1 train videos" in done.stderr
    assert "19 of the 20 val videos are missing: blackswan" in done.stderr
    assert len(scanned(tmp_path / "data", "davis16", "val")["cows"].frames) == 104


def test_ytvos_keeps_objects_and_takes_frames_in_between(tmp_path):
    source = tmp_path / "source"
    for t in (0, 5, 10):
        save(source / f"train/JPEGImages/0a2/{t:05d}.jpg", picture(t, SIZE))
        save(source / f"train/Annotations/0a2/{t:05d}.png", two_objects(), True)
    (source / "train/meta.json").write_text("{}")
    prepare(RECIPES["ytvos"], [source], tmp_path / "five")
    video = scanned(tmp_path / "five", "ytvos", "train")["0a2"]
    assert [f.stem for f in video.frames] == ["00000", "00005", "00010"]
    np.testing.assert_array_equal(masks_of(video)["00005"], HALF)
    assert_stored(video, two_objects())
    for t in range(11):
        save(source / f"train_all_frames/JPEGImages/0a2/{t:05d}.jpg", picture(t, SIZE))
    prepare(RECIPES["ytvos"], [source / "train", source / "train_all_frames"], tmp_path / "all")
    video = scanned(tmp_path / "all", "ytvos", "train")["0a2"]
    assert len(video.frames) == 11 and sorted(masks_of(video)) == ["00000", "00005", "00010"]
    with pytest.raises(SourceError, match="valid and test parts hold no usable truth"):
        prepare(RECIPES["ytvos"], [source / "train_all_frames"], tmp_path / "none")


def davis17(base: Path):
    sets = base / "DAVIS" / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    for split, names in (("train", ("bear", "judo")), ("val", ("cows",)), ("test-dev", ("new",))):
        (sets / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            for t in range(3):
                save(base / f"DAVIS/JPEGImages/480p/{name}/{t:05d}.jpg", picture(t, SIZE))
                if split != "test-dev" or t == 0:
                    save(base / f"DAVIS/Annotations/480p/{name}/{t:05d}.png", two_objects(), True)
    return base / "DAVIS"


def test_davis17(tmp_path):
    source = davis17(tmp_path / "source")
    manifest = prepare(RECIPES["davis17"], [source], tmp_path / "data")
    assert {split: counts["masks"] for split, counts in manifest["splits"].items()} == {
        "train": 6, "val": 3, "test-dev": 1,
    }  # fmt: skip
    assert list(scanned(tmp_path / "data", "davis17_testdev", "val")) == ["new"]
    assert_stored(scanned(tmp_path / "data", "davis17", "train")["judo"], two_objects())
    shutil.rmtree(source / "JPEGImages/480p/judo")
    with pytest.raises(SourceError, match="1 of the 2 train videos are missing: judo; --splits"):
        prepare(RECIPES["davis17"], [source], tmp_path / "other")
    assert list(prepare(RECIPES["davis17"], [source], tmp_path / "other", part="val")["splits"]) == [
        "val",
        "test-dev",
    ]
    (source / "Annotations/480p/cows/00002.png").unlink()
    with pytest.raises(SourceError, match="val/cows: image 00002 has no mask"):
        prepare(RECIPES["davis17"], [source], tmp_path / "third", part="val")


def test_ytvos_with_objects(tmp_path):
    for part, masks in (("train", (0, 5)), ("valid", (5,))):
        for t in (0, 5):
            save(tmp_path / f"source/{part}/JPEGImages/0a2/{t:05d}.jpg", picture(t, SIZE))
        for t in masks:
            save(tmp_path / f"source/{part}/Annotations/0a2/{t:05d}.png", two_objects(), True)
        (tmp_path / f"source/{part}/meta.json").write_text(f'{{"videos": {{"{part}": {{}}}}}}')
        shutil.make_archive(str(tmp_path / part), "zip", tmp_path / "source", part)
    prepare(RECIPES["ytvos19"], [tmp_path / "train.zip", tmp_path / "valid.zip"], tmp_path / "data")
    base = tmp_path / "data/YouTubeVOS-2019"
    assert json.loads((base / "meta_valid.json").read_text())["videos"] == {"valid": {}}
    assert sorted(path.name for path in base.iterdir()) == [
        "Annotations", "Images", "manifest.json", "meta_train.json", "meta_valid.json",
    ]  # fmt: skip
    assert len(masks_of(scanned(tmp_path / "data", "ytvos19", "train")["0a2"])) == 2
    val = scanned(tmp_path / "data", "ytvos19", "val")["0a2"]
    assert [frame.stem for frame in val.frames if frame.mask is not None] == ["00005"]
    assert_stored(val, two_objects())


def test_single_images_of_several_layouts(tmp_path):
    trees = {
        "ecssd": ("images/0001.jpg", "ground_truth_mask/0001.png", "0001"),
        "msra10k": ("MSRA10K_Imgs_GT/Imgs/9.jpg", "MSRA10K_Imgs_GT/Imgs/9.png", "9"),
        "fss1000": ("fewshot_data/ab_wheel/1.jpg", "fewshot_data/ab_wheel/1.png", "ab_wheel_1"),
        "big": ("val/2007_im.jpg", "val/2007_gt.png", "2007"),
        "voc": ("VOC2012/JPEGImages/2007_1.jpg", "VOC2012/SegmentationObject/2007_1.png", "2007_1"),
    }
    for name, (image, mask, stem) in trees.items():
        save(tmp_path / name / image, picture(1, SIZE))
        ids = two_objects()
        ids[:, 12:] = 255
        if name == "voc":
            write_labels(tmp_path / name / mask, ids)
        else:
            save(tmp_path / name / mask, HALF * 255)
        save(tmp_path / name / "without_mask.jpg", picture(2, SIZE))
        prepare(RECIPES[name], [tmp_path / name], tmp_path / "data")
        videos = scanned(tmp_path / "data", name, "train")
        assert list(videos) == [stem]
        assert_stored(videos[stem], ids if name == "voc" else HALF)


def fbms(base: Path):
    for folder, names in (("Trainingset", FBMS_TRAIN), ("Testset", FBMS_TEST)):
        for name in names:
            for t in (1, 2, 3):
                save(base / folder / name / f"{name}_{t:02d}.jpg", picture(t, SIZE))
            truth = base / folder / name / "GroundTruth"
            (truth).mkdir()
            (truth / f"{name}Def.dat").write_text("text")
            if name in ("camel01", "cats01"):
                painted = np.full((*SIZE, 3), 255, np.uint8)
                painted[:, :4], painted[:, 4:8] = (255, 0, 0), (0, 0, 0)  # a black object counts
                save(truth / f"{name}_01_gt.ppm", painted)
                save(truth / f"{name}_01_gt.pgm", np.zeros(SIZE, np.uint8))  # loses objects: ignored
                save(truth / f"{name}_01_gt_PROB.ppm", np.zeros((*SIZE, 3), np.uint8))
            else:
                save(truth / f"{name}_01.pgm", HALF * 200)
    return base


def test_fbms(tmp_path):
    source = fbms(tmp_path / "FBMS")
    grey = HALF * 200
    grey[:, 8:] = 90  # a grey region that is background in marple2, an object elsewhere
    save(source / "Testset/marple2/GroundTruth/marple2_01.pgm", grey)
    save(source / "Testset/marple4/GroundTruth/marple4_01.pgm", grey)
    save(source / "Testset/marple7/GroundTruth/marple7_01.pgm", HALF * 20)
    tennis = source / "Testset/tennis"  # numbers without padding, and truth named by number alone
    for path in [*tennis.glob("*.jpg"), *tennis.glob("GroundTruth/*.pgm")]:
        path.unlink()
    for t in (9, 10, 11):
        save(tennis / f"tennis{t}.jpg", picture(t, SIZE))
    save(tennis / "GroundTruth/tennis10.pgm", HALF * 255)
    archives = []
    for part in ("Trainingset", "Testset"):
        archives.append(Path(shutil.make_archive(str(tmp_path / f"FBMS_{part}"), "zip", source, part)))
    prepare(RECIPES["fbms"], archives, tmp_path / "data")
    train, val = (scanned(tmp_path / "data", "fbms", split) for split in ("train", "val"))
    assert set(train) == set(FBMS_TRAIN) and set(val) == set(FBMS_TEST)
    for name in ("camel01", "cars1", "marple2", "marple7"):
        assert list(masks_of(val[name])) == [f"{name}_01"], name
        np.testing.assert_array_equal(masks_of(val[name])[f"{name}_01"], HALF, err_msg=name)
    assert masks_of(val["marple4"])["marple4_01"].all()
    assert [f.stem for f in val["tennis"].frames] == ["tennis_09", "tennis_10", "tennis_11"]
    assert list(masks_of(val["tennis"])) == ["tennis_10"]
    np.testing.assert_array_equal(read_rgb(val["tennis"].frames[0].image), read_rgb(tennis / "tennis9.jpg"))
    assert_stored(val["camel01"], HALF)


def test_fbms_that_holds_davis(tmp_path):
    for name in DAVIS16_VAL:
        save(tmp_path / f"FBMS/Testset/{name}/00000.jpg", picture(0, SIZE))
    with pytest.raises(SourceError, match=r"none of its 30 videos; .*\(DAVIS, for one\)"):
        prepare(RECIPES["fbms"], [tmp_path / "FBMS"], tmp_path / "data")


def test_fbms_truth_without_image(tmp_path):
    source = fbms(tmp_path / "FBMS")
    save(source / "Testset/cars1/GroundTruth/cars1_19.pgm", HALF)
    with pytest.raises(SourceError, match=r"cars1_19\.pgm: no image of this number"):
        prepare(RECIPES["fbms"], [source], tmp_path / "data")


def test_ytobj(tmp_path):
    frames, masks = tmp_path / "frames", tmp_path / "masks"
    for category, video, shot in (("aeroplane", "0001", "001"), ("train", "0010", "025")):
        where = f"{category}/data/{video}/shots/{shot}"
        for t in range(1, 22):
            save(frames / where / f"frame{t:04d}.jpg", picture(t, SIZE))
        for t in (1, 11, 21):  # half size, JPEG noise around 0 and 255
            save(masks / where / f"labels/{t:05d}.jpg", half_mask((6, 8)))
    with tarfile.open(tmp_path / "youtube_masks.tar.gz", "w:gz") as tape:
        tape.add(masks, "youtube_masks")
    prepare(RECIPES["ytobj"], [frames, tmp_path / "youtube_masks.tar.gz"], tmp_path / "data")
    videos = scanned(tmp_path / "data", "ytobj", "val")
    assert list(videos) == ["aeroplane0001_001", "train0010_025"]
    video = videos["train0010_025"]
    assert len(video.frames) == 21 and sorted(masks_of(video)) == ["00001", "00011", "00021"]
    np.testing.assert_array_equal(masks_of(video)["00011"], HALF)


def test_ytobj_frames_inside_the_mask_archive_and_missing_ones(tmp_path):
    where = tmp_path / "source/cow/data/0002/shots/003"
    save(where / "images/frame0001.jpg", picture(1, SIZE))
    save(where / "labels/00001.jpg", half_mask(SIZE))
    prepare(RECIPES["ytobj"], [tmp_path / "source"], tmp_path / "data")
    assert list(scanned(tmp_path / "data", "ytobj", "val")) == ["cow0002_003"]
    save(where / "labels/00011.jpg", half_mask(SIZE))
    with pytest.raises(SourceError, match="label 11 has no frame"):
        prepare(RECIPES["ytobj"], [tmp_path / "source"], tmp_path / "other")
    (where / "images/frame0001.jpg").unlink()
    with pytest.raises(SourceError, match="no frames; give the archive of this class's frames"):
        prepare(RECIPES["ytobj"], [tmp_path / "source"], tmp_path / "other")


DAVSOD_PARTS = {
    "DAVSOD-TrainingSet": ("davsod", "train"),
    "DAVSOD-ValidationSet": ("davsod_validation", "val"),
    "Easy-35": ("davsod", "val"),
    "Normal-25": ("davsod_normal", "val"),
    "Difficult-20": ("davsod_difficult", "val"),
}


def test_davsod(tmp_path):
    archives = []
    for number, part in enumerate(DAVSOD_PARTS):
        sequence = tmp_path / f"{part}-content" / part / f"select_{number:04d}"
        for frame in ("0101", "0102", "0105"):  # numbers of the source video, with gaps
            save(sequence / "Imgs" / f"{frame}.png", picture(number, SIZE))
            save(sequence / "GT_object_level" / f"{frame}.png", HALF * 255)
            save(sequence / "GT_instance_level" / f"{frame}.png", two_objects(), True)
        save(sequence / "Fixation_maps" / "0101.png", HALF)
        archives.append(Path(shutil.make_archive(str(tmp_path / part), "zip", tmp_path / f"{part}-content")))
    prepare(RECIPES["davsod"], archives, tmp_path / "data")
    for number, (name, split) in enumerate(DAVSOD_PARTS.values()):
        videos = scanned(tmp_path / "data", name, split)
        assert list(videos) == [f"select_{number:04d}"]
        video = videos[f"select_{number:04d}"]
        assert [f.stem for f in video.frames] == ["0101", "0102", "0105"]
        np.testing.assert_array_equal(masks_of(video)["0105"], HALF)


def test_davsod_part_that_cannot_be_told(tmp_path):
    save(tmp_path / "mine/select_0001/Imgs/0001.png", picture(0, SIZE))
    with pytest.raises(SourceError, match="Easy-35, Normal-25"):
        prepare(RECIPES["davsod"], [tmp_path / "mine"], tmp_path / "data")


def test_visal_original_layout(tmp_path):
    source = tmp_path / "source"
    for t in range(6):
        save(source / f"ViSal/horse2/horse2_{t:03d}.bmp", picture(t, SIZE))
        save(source / f"ViSal/panda/panda_{t:03d}.jpg", picture(t, SIZE))
    grey = HALF * 255
    grey[:, 8] = 100  # a soft edge: below one half is background
    for t in (0, 5):
        save(source / f"GroundTruth/horse2_{t:03d}.bmp", grey)
        save(source / f"GroundTruth/panda_{t:03d}.png", grey)
    prepare(RECIPES["visal"], [source], tmp_path / "data")
    videos = scanned(tmp_path / "data", "visal", "val")
    assert (
        sorted(masks_of(videos["horse2"])) == ["horse2_000", "horse2_005"]
        and len(videos["panda"].frames) == 6
    )
    np.testing.assert_array_equal(masks_of(videos["panda"])["panda_005"], HALF)
    save(source / "GroundTruth/lion_000.png", grey)
    with pytest.raises(SourceError, match=r"lion_000\.png fits no image"):
        prepare(RECIPES["visal"], [source], tmp_path / "other")


def test_visal_second_layout(tmp_path):
    for t in range(3):
        save(tmp_path / f"ViSal/car/Imgs/{t:05d}.png", picture(t, SIZE))
    save(tmp_path / "ViSal/car/ground-truth/00001.png", HALF * 255)
    prepare(RECIPES["visal"], [tmp_path / "ViSal"], tmp_path / "data")
    assert list(masks_of(scanned(tmp_path / "data", "visal", "val")["car"])) == ["00001"]


def test_longvideos(tmp_path):
    base = tmp_path / "set/long_video"
    for t in range(5):
        save(base / f"JPEGImages/rat/{t:08d}.jpg", picture(t, SIZE))
        save(tmp_path / f"set/long_video_x3/JPEGImages/rat/{t:08d}.jpg", picture(t, SIZE))
    save(base / "Annotations/rat/00000000.png", two_objects(), True)
    save(base / "Annotations/rat/00000004.png", two_objects(), True)
    prepare(RECIPES["longvideos"], [tmp_path / "set"], tmp_path / "data")
    video = scanned(tmp_path / "data", "longvideos", "val")["rat"]
    assert len(video.frames) == 5 and sorted(masks_of(video)) == ["00000000", "00000004"]
    np.testing.assert_array_equal(masks_of(video)["00000004"], HALF)


def test_duts(tmp_path):
    base = tmp_path / "DUTS-TR"
    for name in ("ILSVRC2012_test_00000004", "n01532829_10034"):
        save(base / f"DUTS-TR-Image/{name}.jpg", picture(0, SIZE))
        save(base / f"DUTS-TR-Mask/{name}.png", HALF * 255)
    prepare(RECIPES["duts"], [base], tmp_path / "data")
    videos = scanned(tmp_path / "data", "duts", "train")
    assert len(videos) == 2 and all(len(v.frames) == 1 for v in videos.values())
    assert prepare(RECIPES["duts"], [base], tmp_path / "data")["splits"]["train"]["videos"] == 2
    (base / "DUTS-TR-Mask/n01532829_10034.png").unlink()
    with pytest.raises(SourceError, match="n01532829_10034 has no image or no mask"):
        prepare(RECIPES["duts"], [base], tmp_path / "other")


def small_source(tmp_path, videos=3):
    for number in range(videos):
        for t in (0, 5):
            save(tmp_path / f"source/train/JPEGImages/v{number}/{t:05d}.jpg", picture(t, SIZE))
            save(tmp_path / f"source/train/Annotations/v{number}/{t:05d}.png", two_objects(), True)
    return tmp_path / "source"


def tree(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }


def test_an_interrupted_run_continues(tmp_path, monkeypatch):
    source = small_source(tmp_path)
    prepare(RECIPES["ytvos"], [source], tmp_path / "whole")
    written = []
    original = write._write_frame

    def failing(recipe, frame, *args):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(frame.image)
        original(recipe, frame, *args)

    monkeypatch.setattr(write, "_write_frame", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(RECIPES["ytvos"], [source], tmp_path / "data")
    images = tmp_path / "data/Youtube-VOS/Images/train"
    assert [p.name for p in images.iterdir()] == ["v0"]  # v1 was half done: not there
    monkeypatch.setattr(write, "_write_frame", lambda *args: written.append("again") or original(*args))
    prepare(RECIPES["ytvos"], [source], tmp_path / "data")
    assert written.count("again") == 4  # v0 was not written again
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


def test_manifest(tmp_path):
    source = small_source(tmp_path)
    manifest = prepare(RECIPES["ytvos"], [source], tmp_path / "data")
    stored = json.loads((tmp_path / "data/Youtube-VOS/manifest.json").read_text())
    assert stored == manifest
    assert stored["videos"]["train/v1"]["frames"] == stored["videos"]["train/v1"]["masks"] == 2
    assert stored["splits"]["train"]["bytes"] == sum(
        len(content) for content in tree(tmp_path / "data").values()
    )
    assert "object ids" in stored["truth"]
    again = prepare(RECIPES["ytvos"], [source], tmp_path / "again")
    assert again["videos"] == manifest["videos"]
    save(source / "train/JPEGImages/v1/00005.jpg", picture(77, SIZE))
    changed = prepare(RECIPES["ytvos"], [source], tmp_path / "changed")
    assert [k for k in changed["videos"] if changed["videos"][k] != manifest["videos"][k]] == ["train/v1"]


@pytest.mark.parametrize("content", ["{", "[]", "5", '{"videos": []}', '{"sources": {}}'])
def test_a_damaged_manifest(tmp_path, content):
    source = small_source(tmp_path)
    (tmp_path / "data/Youtube-VOS").mkdir(parents=True)
    (tmp_path / "data/Youtube-VOS/manifest.json").write_text(content)
    with pytest.raises(SourceError, match=r"manifest\.json is damaged; remove it and run again"):
        prepare(RECIPES["ytvos"], [source], tmp_path / "data")


def test_parts_of_a_set_in_two_runs(tmp_path):
    for number, part in enumerate(("DAVSOD-TrainingSet", "Easy-35")):
        save(tmp_path / part / f"select_{number}" / "Imgs" / "0001.png", picture(number, SIZE))
        save(tmp_path / part / f"select_{number}" / "GT_object_level" / "0001.png", HALF * 255)
        manifest = prepare(RECIPES["davsod"], [tmp_path / part], tmp_path / "data")
    assert sorted(manifest["videos"]) == ["train/select_0", "val/select_1"]
    assert manifest["splits"]["train"]["frames"] == manifest["splits"]["val"]["videos"] == 1
    assert [source["name"] for source in manifest["sources"]] == ["DAVSOD-TrainingSet", "Easy-35"]


def test_other_frames_than_an_earlier_run_made(tmp_path):
    source = small_source(tmp_path)
    prepare(RECIPES["ytvos"], [source], tmp_path / "data")
    for t in range(6):
        save(source / f"train_all_frames/JPEGImages/v0/{t:05d}.jpg", picture(t, SIZE))
        save(source / f"train_all_frames/JPEGImages/v1/{t:05d}.jpg", picture(t, SIZE))
        save(source / f"train_all_frames/JPEGImages/v2/{t:05d}.jpg", picture(t, SIZE))
    with pytest.raises(SourceError, match="already holds other frames than the sources do"):
        prepare(RECIPES["ytvos"], [source], tmp_path / "data")


def test_links(tmp_path):
    source = small_source(tmp_path)
    prepare(RECIPES["ytvos"], [source], tmp_path / "data", "link")
    frame = scanned(tmp_path / "data", "ytvos", "train")["v0"].frames[0]
    assert (
        frame.image.is_symlink()
        and frame.image.resolve() == (source / "train/JPEGImages/v0/00000.jpg").resolve()
    )
    assert not frame.mask.is_symlink()
    archive = Path(shutil.make_archive(str(tmp_path / "train"), "zip", source))
    with pytest.raises(SourceError, match="inside an archive cannot be linked to"):
        prepare(RECIPES["ytvos"], [archive], tmp_path / "other", "link")


def test_faults_of_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare(RECIPES["ytvos"], [tmp_path / "nowhere"], tmp_path / "data")
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(SourceError, match="neither a folder nor a zip or tar archive"):
        prepare(RECIPES["ytvos"], [tmp_path / "readme.txt"], tmp_path / "data")
    (tmp_path / "train.zip").write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(BadFileError, match=r"train\.zip: damaged or unsupported archive .*download it again"):
        prepare(RECIPES["ytvos"], [tmp_path / "train.zip"], tmp_path / "data")
    (tmp_path / "empty").mkdir()
    for recipe in RECIPES.values():
        with pytest.raises(SourceError, match=f"{recipe.name}: .*Expected: "):
            prepare(recipe, [tmp_path / "empty"], tmp_path / "data")
    source = small_source(tmp_path)
    broken = source / "train/JPEGImages/v1/00005.jpg"
    whole = broken.read_bytes()
    for content, reason in ((b"", "file is empty"), (whole[:-20], "damaged image")):
        broken.write_bytes(content)
        for mode in ("copy", "link"):
            with pytest.raises(BadFileError, match=reason):
                prepare(RECIPES["ytvos"], [source], tmp_path / "data", mode)
        images = tmp_path / "data/Youtube-VOS/Images/train"
        assert [path.name for path in images.iterdir()] == ["v0"]
        assert not (tmp_path / "data/Youtube-VOS/.work").exists()
    save(broken, picture(0, (24, 32)))
    with pytest.raises(SourceError, match=r"mask is 16x12 but .* is 32x24"):
        prepare(RECIPES["ytvos"], [source], tmp_path / "data")


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "a\\evil.png"])
def test_archives_that_lead_out_are_refused(tmp_path, name):
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr(name, b"x")
    with pytest.raises(ValueError, match="not a plain relative path"):
        unpack(archive, tmp_path / "work", lambda path: True)
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_archives_are_left_out(tmp_path):
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as tape:
        entry = tarfile.TarInfo("a/link.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tape.addfile(entry)
    assert not list(unpack(archive, tmp_path / "work", lambda path: True).rglob("*.png"))


def test_unpacking_happens_once(tmp_path):
    save(tmp_path / "content/a.png", picture(0))
    archive = Path(shutil.make_archive(str(tmp_path / "pack"), "gztar", tmp_path / "content"))
    target = unpack(archive, tmp_path / "work", lambda path: True)
    (target / "marker").touch()
    assert (unpack(archive, tmp_path / "work", lambda path: True) / "marker").exists()
    (tmp_path / "work/pack.tar.gz.complete").unlink()  # as after an interruption
    assert not (unpack(archive, tmp_path / "work", lambda path: True) / "marker").exists()
