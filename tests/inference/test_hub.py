"""Weights by the names that the hub gives them; nothing here needs a network."""

import os
import subprocess
import sys

import numpy as np
import pytest
from small_model import save_small_checkpoint

import hmhi
from hmhi.commands.export_weights import main as export


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The layout of the hub's cache, as a download leaves it, with one model in it."""
    root = tmp_path_factory.mktemp("hub")
    checkpoint = save_small_checkpoint(root / "small.pt")
    snapshot = root / "hub" / "models--ann--walker" / "snapshots" / "a1b2"
    assert export(["--checkpoint", str(checkpoint), "--to", "hub", "--output", str(snapshot)]) == 0
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a1b2")
    return snapshot


def test_a_folder_is_segmented_with_like_the_file_in_it(folder):
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    segmenter = hmhi.from_pretrained(folder, "cpu", memory_frames=2)
    assert isinstance(segmenter, hmhi.VideoSegmenter)
    expected = hmhi.VideoSegmenter(folder / "model.safetensors", "cpu", memory_frames=2).step(frame).prob
    assert np.array_equal(segmenter.step(frame).prob, expected)
    with pytest.raises(hmhi.UserError, match="leave revision out"):
        hmhi.from_pretrained(folder, revision="v1")


OFFLINE = """
import hmhi
print(hmhi.from_pretrained("ann/walker", "cpu").input_size(9, 9))
for name, revision in [("ann/walker", "v9"), ("ann/nobody", None), ("no/such/file.pt", None)]:
    try:
        hmhi.from_pretrained(name, revision=revision)
    except hmhi.UserError as error:
        print(error)
"""


def test_an_id_of_the_hub(repository, folder, tmp_path):
    """In a process of its own, as the hub's client reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    hub = {"HF_HOME": str(folder.parents[3]), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(command, env={**os.environ, **hub}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, *errors = done.stdout.splitlines()
    assert size == "(64, 64)"
    for line, name in zip(errors, ("ann/walker", "ann/nobody", "no/such/file.pt"), strict=True):
        assert line.startswith(f"{name} is not here, and not to be had from the hub (")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(hmhi.UserError, match=r"ann/walker is not here.*pip install 'hmhi\[hub\]'"):
        hmhi.from_pretrained("ann/walker")
