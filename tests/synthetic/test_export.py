import numpy as np
import pytest
from PIL import Image

from hmhi.flow.codec import flow_to_rgb
from hmhi.flow.provenance import read_record
from hmhi.synthetic import render_clip, write_dataset


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_layout_and_contents(tmp_path):
    folder = write_dataset(tmp_path, "Toy", "train", videos=2, frames=3, size=(64, 80), seed=7)
    assert folder == tmp_path / "Toy"
    files = tree(folder)
    assert len(files) == 2 * 3 * 3 + 1
    assert read_record(folder / "Flows/train")["method"] == "exact"
    assert "Images/train/scene_00008/00002.jpg" in files
    clip = render_clip(7, 3, (64, 80))
    mask = np.asarray(Image.open(folder / "Annotations/train/scene_00007/00001.png"))
    np.testing.assert_array_equal(mask, clip.masks[1] * 255)
    flow = np.asarray(Image.open(folder / "Flows/train/scene_00007/00001.png"))
    np.testing.assert_array_equal(flow, flow_to_rgb(clip.flows[1]))
    image = np.asarray(Image.open(folder / "Images/train/scene_00007/00001.jpg")).astype(int)
    assert np.abs(image - clip.images[1]).mean() < 4


def test_a_second_call_fills_what_is_missing_and_touches_nothing_else(tmp_path):
    arguments = {"name": "Toy", "split": "val", "videos": 2, "frames": 2, "size": (48, 48), "seed": 0}
    folder = write_dataset(tmp_path, **arguments)
    before = {path: (folder / path).stat().st_mtime_ns for path in tree(folder)}
    lost = folder / "Annotations/val/scene_00001/00000.png"
    content = lost.read_bytes()
    lost.unlink()
    write_dataset(tmp_path, **arguments)
    assert lost.read_bytes() == content
    assert tree(folder) == sorted(before)
    with pytest.raises(ValueError, match="holds exact flow"):
        write_dataset(tmp_path, **arguments, flow="dis")
    kept = [path for path in before if "scene_00000" in path]
    assert all((folder / path).stat().st_mtime_ns == before[path] for path in kept)
