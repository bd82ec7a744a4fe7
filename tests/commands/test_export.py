"""`hmhi export masks` and what else came with it, as users type it, on what `hmhi segment` wrote."""

import json

import cv2
import numpy as np
import pytest
from small_model import save_small_checkpoint

from hmhi.commands.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    checkpoint = save_small_checkpoint(root / "best.pt")
    writer = cv2.VideoWriter(str(root / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for t in range(3):
        frame = np.full((48, 64, 3), 90, dtype=np.uint8)
        frame[10:30, 10 + 5 * t : 30 + 5 * t] = (20, 200, 240)
        writer.write(frame)
    writer.release()
    words = ["--input", root / "walk.avi", "--output", root / "out", "--background", "blur"]
    assert main(["segment", *map(str, words), "--checkpoint", str(checkpoint), "infer.threshold=0.4"]) == 0
    return root / "out"


def test_masks_are_exported_with_their_frames(run, capsys):
    assert main(["export", "masks", "--from", str(run), "--to", "coco", "--images", "--category", "dog"]) == 0
    folder = run / "exports" / "coco"
    assert capsys.readouterr().out == f"wrote {folder}\n"
    document = json.loads((folder / "annotations" / "instances_default.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [f"walk/0000{t}.jpg" for t in range(3)]
    assert all((folder / "images" / image["file_name"]).is_file() for image in document["images"])
    assert document["categories"] == [{"id": 1, "name": "dog"}]


def test_another_background_is_written(run):
    assert (run / "composite" / "walk.mp4").stat().st_size > 0
    assert json.loads((run / "infer.json").read_text())["background"] == "blur"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "masks", "--from", "nowhere", "--to", "coco"], "no masks in nowhere"),
        (
            ["export", "masks", "--from", "nowhere", "--to", "coco", "--category", " "],
            "category must be a name",
        ),
        (["segment", "--list", "nowhere", "--output", "out"], "list of videos not found: nowhere"),
        (["segment", "--list", "x", "--output", "out", "--time-limit", "0"], "--time-limit must be positive"),
        (
            ["segment", "--input", "x", "--output", "y", "--background", "nosuch"],
            "neither 'blur', nor an image",
        ),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and message in error[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda:99"], "device cuda:99"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_the_server_does_not_start_with_what_no_job_could_use(words, message, tmp_path, capsys):
    pytest.importorskip("fastapi", reason="FastAPI (extra web) is not installed")
    assert main(["serve", "--folder", str(tmp_path / "jobs"), "--port", "0", *words]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and message in error[0]
