"""tools/infer.py --attention as users type it."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from small_model import save_small_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_small_checkpoint(tmp_path_factory.mktemp("model") / "best.pt")


@pytest.fixture
def infer(repository, checkpoint, tmp_path):
    def run(*arguments):
        command = [sys.executable, repository / "tools" / "infer.py", "--checkpoint", checkpoint]
        command += ["--input", tmp_path / "in", "--output", tmp_path / "out", *arguments]
        return subprocess.run([str(part) for part in command], capture_output=True, text=True)

    return run


def write_frames(folder, count):
    folder.mkdir(parents=True)
    for t in range(count):
        frame = np.random.default_rng(t).integers(0, 255, (40, 61, 3), dtype=np.uint8)
        Image.fromarray(frame).save(folder / f"{t:05d}.jpg")


def test_pictures_of_a_pixel(infer, tmp_path):
    write_frames(tmp_path / "in" / "a", 3)
    write_frames(tmp_path / "in" / "b", 1)
    done = infer("--attention", 30, 20)
    assert done.returncode == 0, done.stderr
    assert "b: no attention to draw: no frame read the memory" in done.stderr
    out = tmp_path / "out"
    names = ["memory_stage2", "memory_stage4", "plam_stage4", "sgim_stage2"]
    assert sorted(path.name for path in (out / "attention" / "a").iterdir()) == [
        f"00002_{name}.png" for name in names
    ]
    assert list((out / "attention" / "b").iterdir()) == []
    assert len(list((out / "masks").rglob("*.png"))) == 4

    done = infer("--attention", 30, 20, "--attention-frame", 1)
    assert done.returncode == 2
    assert "another attention_frame" in done.stderr
    done = infer("--attention", 30, 20, "--attention-frame", 1, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (out / "attention" / "a").iterdir()) == [
        f"00001_{name}.png" for name in names
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attention", 61, 20], "pixel (61, 20) lies outside frame 0 of 61x40 pixels"),
        (["--attention-frame", 1], "--attention-frame needs --attention X Y"),
        (["--attention", 5, 5, "--compile"], "leave --compile and --graphs out"),
    ],
    ids=["outside", "no pixel", "compiled"],
)
def test_what_cannot_be_drawn_is_refused(infer, tmp_path, arguments, message):
    write_frames(tmp_path / "in", 2)
    done = infer(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "masks").exists()
