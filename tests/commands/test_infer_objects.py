"""tools/infer.py with masks, as users type it; small untrained networks show plumbing, not accuracy."""

import json
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image
from small_hmmn import save_small_hmmn
from small_model import save_small_checkpoint
from small_stma import save_small_stma

from hmhi.commands import evaluate, segment
from hmhi.media.masks import PALETTE, read_labels, write_labels

SIZE = (40, 61)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_hmmn(tmp_path_factory.mktemp("model") / "hmmn.pt")


@pytest.fixture
def infer(checkpoint, capsys):
    """The command in this process; gives what it says on stdout and stderr."""

    def run(*arguments, code=0, weights=checkpoint):
        words = [
            "--short-side",
            "32",
            *(["--checkpoint", str(weights)] if weights else []),
            *map(str, arguments),
        ]
        assert segment.main(words) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.out + said.err

    return run


def labels_of(*ids, shift=0):
    labels = np.zeros(SIZE, np.uint8)
    for place, number in enumerate(ids):
        labels[8:28, 4 + 24 * place + shift : 24 + 24 * place + shift] = number
    return labels


def write_frames(folder, stems):
    folder.mkdir(parents=True)
    still = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for t, stem in enumerate(stems):
        Image.fromarray(np.roll(still, t, axis=1)).save(folder / f"{stem}.jpg")
    return folder


def stems(folder):
    return sorted(path.stem for path in folder.iterdir())


def test_first_mask_and_results_by_object(infer, tmp_path):
    frames = write_frames(tmp_path / "walk", ["f1", "f2", "f10"])
    own = [0, 0, 0, 9, 9, 200, *PALETTE[6:]]
    write_labels(tmp_path / "first.png", labels_of(1, 7), own)
    out = tmp_path / "out"
    said = infer(
        "--input", frames, "--first-mask", tmp_path / "first.png", "--output", out, "--save-prob", "--matte",
        "--coco", "--overlay", "--strip", "--model", "hmmn", "--zip", "model.hmmn.topk=3",
    )  # fmt: skip
    assert "1 sequences in" in said and f"all masks: {out / 'masks.zip'}" in said
    assert np.array_equal(read_labels(out / "masks" / "walk" / "f1.png"), labels_of(1, 7))
    with Image.open(out / "masks" / "walk" / "f1.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[:6] == own[:6]
    for number in (1, 7):
        assert stems(out / "prob" / "walk" / str(number)) == ["f1", "f10", "f2"]
        prob = np.array(Image.open(out / "prob" / "walk" / str(number) / "f1.png"))
        assert np.array_equal(prob, np.where(labels_of(1, 7) == number, 255, 0))
        matte = np.array(Image.open(out / "matte" / "walk" / str(number) / "f1.png"))
        assert matte.shape == (*SIZE, 4) and np.array_equal(matte[..., 3] > 0, prob > 0)
    document = json.loads((out / "coco" / "walk.json").read_text())
    assert [(one["id"], len(one["segmentations"])) for one in document["annotations"]] == [(1, 3), (7, 3)]
    assert document["categories"] == [{"id": 1, "name": "object"}]
    assert (out / "overlay" / "walk.mp4").stat().st_size and (out / "strip" / "walk.png").stat().st_size
    record = json.loads((out / "infer.json").read_text())
    assert record["first_mask"] == str(tmp_path / "first.png") and record["flow"] is None
    assert record["sequences"][0]["objects"] == {"1": "f1", "7": "f1"}
    assert record["sequences"][0]["corrected"] == record["sequences"][0]["notes"] == []
    with zipfile.ZipFile(out / "masks.zip") as bundle:
        assert bundle.namelist() == ["walk/f1.png", "walk/f2.png", "walk/f10.png"]


@pytest.mark.parametrize("kind", ["hmmn", "stma"])
def test_masks_of_many_videos_late_objects_and_corrections(kind, infer, checkpoint, tmp_path):
    if kind == "stma":
        checkpoint = save_small_stma(tmp_path / "stma.pt")
    infer = partial(infer, weights=checkpoint)
    clips, masks = tmp_path / "clips", tmp_path / "masks"
    for name in ("a", "b"):
        write_frames(clips / name, ["00000", "00001", "00002", "00003"])
    write_labels(masks / "a.png", labels_of(5))
    write_labels(masks / "b" / "00001.png", labels_of(3))
    write_labels(masks / "b" / "00003.png", labels_of(3, 9, shift=5))
    asked = ["--input", clips, "--masks", masks]
    infer(*asked, "--output", tmp_path / "new")
    assert np.array_equal(read_labels(tmp_path / "new" / "masks" / "a" / "00000.png"), labels_of(5))
    infer(*asked, "--output", tmp_path / "all", "--use-masks", "all", "--sequences", "b")
    infer(*asked, "--output", tmp_path / "first", "--use-masks", "first", "--sequences", "b")
    infer(*asked, "--output", tmp_path / "nine", "--sequences", "b", "--objects", "9")
    last = {
        run: read_labels(tmp_path / run / "masks" / "b" / "00003.png")
        for run in ("new", "all", "first", "nine")
    }
    assert np.array_equal(last["all"], labels_of(3, 9, shift=5))
    assert np.array_equal(last["new"] == 9, last["all"] == 9) and not np.array_equal(last["new"], last["all"])
    assert not (last["first"] == 9).any()
    assert np.array_equal(last["nine"], np.where(last["all"] == 9, 9, 0))
    assert not read_labels(tmp_path / "all" / "masks" / "b" / "00000.png").any()
    b = json.loads((tmp_path / "all" / "sequences" / "b.json").read_text())
    assert b["objects"] == {"3": "00001", "9": "00003"} and b["corrected"] == ["00003"]
    assert b["notes"] == [
        "the first 1 frames have no mask: they are background",
        "given masks corrected later frames: this is no benchmark run",
    ]
    said = infer(*asked, "--output", tmp_path / "new", "--use-masks", "all", code=2)
    assert "made with another use_masks" in said


def test_a_mask_that_cannot_be_used_costs_its_video_only(infer, tmp_path):
    for name in ("a", "b"):
        write_frames(tmp_path / "clips" / name, ["00000", "00001"])
        write_labels(tmp_path / "masks" / name / "00000.png", labels_of(5) if name == "a" else labels_of())
    said = infer(
        "--input", tmp_path / "clips", "--masks", tmp_path / "masks", "--output", tmp_path / "out", code=2
    )
    assert "error: b: b: no mask of" in said and "1 of 2 failed: b" in said
    assert stems(tmp_path / "out" / "masks") == ["a"] and stems(tmp_path / "out" / "failed") == ["b"]


def test_davis_2016_with_real_frames(infer, shared_data, tmp_path):
    """Complete truth in a data set is one object, given at its first frame alone."""
    davis = tmp_path / "sets" / "DAVIS-16"
    for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (davis / kind / "480p" / "blackswan").mkdir(parents=True)
        for t in range(3):
            name = f"480p/blackswan/{t:05d}.{suffix}"
            shutil.copyfile(shared_data / "davis16" / kind / name, davis / kind / name)
    (davis / "ImageSets" / "480p").mkdir(parents=True)
    (davis / "ImageSets" / "480p" / "val.txt").write_text("blackswan\n")
    said = infer("--input", "davis16", "--output", tmp_path / "out", f"data.root={tmp_path / 'sets'}")
    assert "score them: python tools/val_zvos.py" in said
    first = read_labels(davis / "Annotations" / "480p" / "blackswan" / "00000.png")
    assert np.array_equal(read_labels(tmp_path / "out" / "masks" / "blackswan" / "00000.png"), first)
    record = json.loads((tmp_path / "out" / "sequences" / "blackswan.json").read_text())
    assert record["objects"] == {"1": "00000"} and record["corrected"] == []
    assert record["size"] == [480, 854]


def test_davis_2017_is_scored_by_object(infer, tmp_path, capsys):
    davis = tmp_path / "sets" / "DAVIS-17"
    write_frames(davis / "Images" / "val" / "pair", ["00000", "00001", "00002"])
    for t in range(3):
        write_labels(davis / "Annotations" / "val" / "pair" / f"{t:05d}.png", labels_of(1, 2, shift=t))
    said = infer("--input", "davis17", "--output", tmp_path / "out", f"data.root={tmp_path / 'sets'}")
    assert "score them: python tools/val_svos.py" in said
    words = ["--pred", str(tmp_path / "out" / "masks"), "--gt", str(davis / "Annotations" / "val")]
    assert evaluate.main(["objects", *words, "--protocol", "davis17"]) == 0
    assert "pair/1" in (said := capsys.readouterr().out) and "pair/2" in said


@pytest.mark.parametrize(
    ("images", "masks", "meta"),
    [
        ("{part}/JPEGImages", "valid/Annotations", "valid/meta.json"),  # as published
        ("Images/{part}", "Annotations/valid", "meta_valid.json"),  # as tools/prepare_data.py writes it
    ],
)
def test_youtube_vos_reads_all_frames_and_writes_the_listed(infer, tmp_path, caplog, images, masks, meta):
    base = tmp_path / "sets" / "YouTubeVOS-2019"
    every, fifth = [f"{t:05d}" for t in range(6)], ["00000", "00005"]
    write_frames(base / images.format(part="valid") / "clip", fifth)
    write_labels(base / masks / "clip" / "00000.png", labels_of(2))
    write_labels(base / masks / "clip" / "00005.png", labels_of(4, shift=30))
    objects = {"2": {"category": "cat", "frames": fifth}, "4": {"category": "dog", "frames": ["00005"]}}
    (base / meta).write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    asked = ["--input", "ytvos19", "--zip", f"data.root={tmp_path / 'sets'}"]
    infer(*asked, "--output", tmp_path / "sparse")
    assert "every fifth frame is read, which costs much" in caplog.text
    write_frames(base / images.format(part="valid_all_frames") / "clip", every)
    said = infer(*asked, "--output", tmp_path / "dense")
    assert "score them" not in said
    for run, frames in (("sparse", 2), ("dense", 6)):
        assert stems(tmp_path / run / "masks" / "clip") == fifth
        record = json.loads((tmp_path / run / "sequences" / "clip.json").read_text())
        assert record["frames"] == frames and record["objects"] == {"2": "00000", "4": "00005"}
        with zipfile.ZipFile(tmp_path / run / "masks.zip") as bundle:
            assert bundle.namelist() == [f"Annotations/clip/{stem}.png" for stem in fifth]


def test_what_does_not_fit_together_is_one_line(infer, checkpoint, tmp_path):
    clips, out = tmp_path / "clips", tmp_path / "out"
    for name in ("a", "b"):
        write_frames(clips / name, ["00000"])
    mask = tmp_path / "first.png"
    write_labels(mask, labels_of(5))
    write_labels(tmp_path / "masks" / "a.png", labels_of(5))
    hmhi = save_small_checkpoint(tmp_path / "hmhi.pt")
    salient = "which finds the salient object by itself; leave one of them out"
    for weights, words, text in (
        (checkpoint, [], "no mask says which objects to follow; give --first-mask FILE"),
        (checkpoint, ["--first-mask", mask], "belongs to one video, and the input holds 2; choose one with"),
        (checkpoint, ["--first-mask", mask, "--masks", tmp_path / "masks"], "not both"),
        (checkpoint, ["--masks", tmp_path / "masks"], "has no masks for: b; expected"),
        (checkpoint, ["--masks", tmp_path / "nothing"], "mask folder not found"),
        (checkpoint, ["--first-mask", tmp_path / "no.png", "--sequences", "a"], "mask not found"),
        (checkpoint, ["--flow", "dis"], "--flow is for HMHI-Net, and"),
        (
            checkpoint,
            ["--image-size", "64"],
            "is HMMN, which follows objects given by masks; leave it out",
        ),
        (checkpoint, ["--memory-frames", "3"], "--memory-frames is for HMHI-Net"),
        (checkpoint, ["--scene-cuts"], "--scene-cuts is for HMHI-Net"),
        (checkpoint, ["--quality", "best"], "--quality is for HMHI-Net"),
        (
            checkpoint,
            ["--first-mask", mask, "--sequences", "a", "infer.tta=flip"],
            "infer.tta=flip is for HMHI-Net",
        ),
        (checkpoint, ["--attention", "3", "3"], "--attention is for HMHI-Net"),
        (checkpoint, ["--model", "hmhi"], "--model hmhi is HMHI-Net, but"),
        (hmhi, ["--first-mask", mask], f"hmhi.pt is HMHI-Net, {salient}"),
        (hmhi, ["--objects", "3"], "--objects is for HMMN and STMA, which follow objects given by masks"),
        (checkpoint, ["--follow"], "--follow is for HMHI-Net"),
        (None, ["--masks", tmp_path / "masks", "--model", "hmhi"], f"--model hmhi is HMHI-Net, {salient}"),
        (None, ["--model", "stma"], "no weights of STMA are bundled; name them with --checkpoint FILE"),
    ):
        said = infer("--input", clips, "--output", out, *words, code=2, weights=weights)
        assert text in said and said.count("\n") == 1, said
    assert not out.exists()
